"""Janus against transformers' own: logits, greedy images under guidance, null branch, pixels, codes, damaged folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from damaged_folders import edited, refused
from tiny_checkpoints import TEXTS, tiny_janus, write_tiny_janus
from tiny_hub import tiny_hub
from torch import nn
from torch.nn import functional as F
from transformers import JanusForConditionalGeneration, JanusProcessor

from t2i_credit.api.sample import sample_to_folder
from t2i_credit.errors import ModelError
from t2i_credit.interfaces import Prompt
from t2i_credit.models import load_pretrained
from t2i_credit.models.janus import JanusImageModel
from t2i_credit.rollout.sampling import sample_rollout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_janus(tmp_path_factory.mktemp("models") / "janus")


@pytest.fixture(scope="module")
def model(folder: Path) -> JanusImageModel:
    return load_pretrained(str(folder))


@pytest.fixture(scope="module")
def upstream(folder: Path) -> Any:
    return JanusForConditionalGeneration.from_pretrained(folder).eval()


def as_upstream(model: JanusImageModel, texts: list[str]) -> Any:
    """What transformers' documentation feeds to `generate`."""
    chats = [[{"role": "user", "content": [{"type": "text", "text": text}]}] for text in texts]
    shown = [model.processor.apply_chat_template(c, add_generation_prompt=True) for c in chats]
    return model.processor(text=shown, generation_mode="image", padding=True)


# Equality ---------------------------------------------------------------------------------------------------------


def test_prompts_are_encoded_as_the_processor_does(model: JanusImageModel) -> None:
    ours, theirs = model.condition(TEXTS, None), as_upstream(model, TEXTS)
    assert torch.equal(ours.inputs, theirs["input_ids"])
    assert torch.equal(ours.attention_mask, theirs["attention_mask"].bool())


def test_the_logits_are_those_of_janus_own_forward(model: JanusImageModel, upstream: Any) -> None:
    inputs = as_upstream(model, TEXTS)
    tokens = torch.randint(24, (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        words = upstream.get_input_embeddings()(inputs["input_ids"])
        image = upstream.prepare_embeddings_for_image_generation(tokens)
        mask = torch.cat([inputs["attention_mask"], torch.ones(2, 16, dtype=torch.long)], 1)
        out = upstream.model(inputs_embeds=torch.cat([words, image], 1), attention_mask=mask)
        states = out.last_hidden_state[:, words.shape[1] - 1 : -1]
        expected = upstream.model.generation_head(states)
    state = model.expand(model.prefill(model.condition(TEXTS, None)), 1)
    cached = [model.advance(state, None if t == 0 else tokens[:, t - 1])[0] for t in range(16)]
    torch.testing.assert_close(torch.stack(cached, 1), expected, atol=1e-4, rtol=0)
    scored = model(model.condition(TEXTS, None), tokens, want=["logprobs"])["logprobs"]
    taken = expected.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    torch.testing.assert_close(scored, taken, atol=1e-4, rtol=0)


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1]])
@pytest.mark.parametrize("cfg_scale", [2.0, 5.0])
def test_greedy_images_are_those_of_janus_own_generation(
    model: JanusImageModel, upstream: Any, texts: list[str], cfg_scale: float
) -> None:
    expected = upstream.generate(
        **as_upstream(model, texts),
        generation_mode="image",
        do_sample=False,
        guidance_scale=cfg_scale,
    )
    prompts = [Prompt(text) for text in texts]
    settings: dict[str, Any] = {"group_size": 1, "top_k": 1, "seed": 0}
    ours = sample_rollout(model, prompts, cfg_scale=cfg_scale, **settings)
    assert torch.equal(ours.tokens, expected)
    plain = sample_rollout(model, prompts, cfg_scale=1.0, **settings)
    assert not torch.equal(plain.tokens, expected)  # guidance matters
    pixels = upstream.decode_image_tokens(expected).permute(0, 3, 1, 2)  # in [-1, 1]
    torch.testing.assert_close(ours.images, (pixels / 2 + 0.5).clamp(0, 1), atol=1e-4, rtol=0)


def test_the_null_prompt_keeps_begin_and_image_start_and_attends_to_padding(
    model: JanusImageModel,
) -> None:
    condition = model.condition(TEXTS, [None, None])
    assert torch.equal(condition.attention_mask[:2], condition.attention_mask[2:])
    for positive, null, mask in zip(
        condition.inputs[:2], condition.inputs[2:], condition.attention_mask[:2], strict=True
    ):
        shown, kept = positive[mask], null[mask]
        assert kept[0] == shown[0] == model.bos and kept[-1] == shown[-1] == model.image_start
        assert (kept[1:-1] == model.pad).all() and len(kept) > 3


def test_a_real_negative_prompt_is_encoded_like_a_positive_one(model: JanusImageModel) -> None:
    condition = model.condition(TEXTS[:1], [TEXTS[1]])
    alone = model.condition(TEXTS[1:], None)
    assert torch.equal(condition.inputs[1], alone.inputs[0])
    assert not torch.equal(condition.inputs[1], model.condition(TEXTS[:1], [""]).inputs[1])


def test_the_text_head_never_runs(model: JanusImageModel) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the text head ran")

    hook = model.janus.lm_head.register_forward_hook(refuse)
    try:
        rollout = sample_rollout(model, [Prompt(TEXTS[0])], group_size=2, cfg_scale=2.0, seed=0)
        model(model.condition(TEXTS[:1], [None]), rollout.tokens, want=["negative_logprobs"])
    finally:
        hook.remove()


def test_a_saved_folder_is_one_that_transformers_itself_loads(
    model: JanusImageModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    again = JanusForConditionalGeneration.from_pretrained(tmp_path).eval()
    processor = JanusProcessor.from_pretrained(tmp_path)
    assert processor.chat_template == model.processor.chat_template
    for name, tensor in model.janus.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_text_head_tied_to_the_embedding_is_loaded_and_saved_tied(tmp_path: Path) -> None:
    model = load_pretrained(str(write_tiny_janus(tmp_path / "first", tied=True)))
    model.save_pretrained(tmp_path / "second")
    for loaded in (model, load_pretrained(str(tmp_path / "second"))):
        head, embedding = loaded.janus.lm_head.weight, loaded.janus.get_input_embeddings().weight
        assert head is embedding and embedding.requires_grad
        assert torch.equal(embedding, model.janus.get_input_embeddings().weight)


def test_images_of_a_janus_folder_are_sampled_into_files(folder: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"count": 2, "cfg_scale": 2.0, "temperature": 1.0, "seed": 0}
    files = sample_to_folder(str(folder), TEXTS[0], None, **settings, out=tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.png"))) == len(files) - 1 == 3  # and the sheet


# Codes ------------------------------------------------------------------------------------------------------------


def test_encoding_finds_codes_by_direction_whatever_their_length(model: JanusImageModel) -> None:
    vq = model.janus.model.vqmodel
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(24, (3, 16), generator=draw)
    directions = F.normalize(vq.quantize.embedding.weight[tokens], dim=-1)
    directions = directions + 0.02 * torch.randn(directions.shape, generator=draw)
    latents = directions * (0.1 + 5 * torch.rand(3, 16, 1, generator=draw))
    latents = latents.transpose(1, 2).unflatten(2, (4, 4))
    hook = vq.quant_conv.register_forward_hook(lambda *_: latents)
    try:
        assert torch.equal(model.encode(torch.zeros(3, 3, 8, 8)), tokens)
        found = vq.encode(torch.zeros(3, 3, 8, 8), return_dict=True).image_tokens
        assert not torch.equal(found.reshape(3, 16), tokens)  # transformers' own goes by length too
    finally:
        hook.remove()


def test_encoding_what_was_decoded_gives_the_codes_back() -> None:
    janus, processor = tiny_janus(codes=4)
    model = JanusImageModel(janus, processor)
    vq, draw = janus.model.vqmodel, torch.Generator().manual_seed(0)
    # A tokenizer that works, without training one: its convolutions see their own place only, every image has each code
    # four times (so that norms and attention see the same set), and the encoder's last layer is the least-squares map
    # from its features to the directions of the codes.
    tokens = torch.stack([torch.randperm(16, generator=draw) % 4 for _ in range(8)])
    with torch.no_grad():
        for layer in vq.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
                centre = layer.weight[..., 1, 1].clone()
                layer.weight.zero_()[..., 1, 1] = 3 * centre
        features = vq.encoder(model.decode(tokens) * 2 - 1)
        features = features.flatten(2).transpose(1, 2).flatten(0, 1)  # (8 * 16, 32)
        features = torch.cat([features, torch.ones(len(features), 1)], 1)
        wanted = F.normalize(vq.quantize.embedding.weight, dim=-1)[tokens].flatten(0, 1)
        solution = torch.linalg.pinv(features) @ wanted  # few distinct rows: not of full rank
        vq.quant_conv.weight.copy_(solution[:-1].T[..., None, None])
        vq.quant_conv.bias.copy_(solution[-1])
    fresh = torch.stack([torch.randperm(16, generator=draw) % 4 for _ in range(8)])
    assert torch.equal(model.encode(model.decode(fresh)), fresh)


# Damaged folders --------------------------------------------------------------------------------------------------


def test_a_missing_shard_is_named(folder: Path, tmp_path: Path) -> None:
    shard = sorted(folder.glob("model-*.safetensors"))[3].name
    message = refused(folder, tmp_path, lambda copy: (copy / shard).unlink())
    assert message == f"{shard}: missing; model.safetensors.index.json names it"


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (lambda whole: b"nonsense", "damaged: "),
        (lambda whole: whole[:-7], "damaged: "),  # a download that broke off
        (lambda whole: b"", "empty; copy or download it again"),
        (
            lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n",
            "a git-lfs pointer in place of the weights; git lfs pull fetches them",
        ),
    ],
)
def test_a_damaged_shard_is_named(left: Any, said: str, folder: Path, tmp_path: Path) -> None:
    shard = sorted(folder.glob("model-*.safetensors"))[3]
    message = refused(
        folder, tmp_path, lambda copy: (copy / shard.name).write_bytes(left(shard.read_bytes()))
    )
    assert message.startswith(f"{shard.name}: {said}")


def test_a_folder_without_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    def without(copy: Path) -> None:
        (copy / "model.safetensors.index.json").unlink()

    def pickled(copy: Path) -> None:
        without(copy)
        (copy / "pytorch_model.bin").write_bytes(b"a pickle")

    none = "folder: neither model.safetensors nor model.safetensors.index.json"
    assert refused(folder, tmp_path / "a", without) == none
    assert refused(folder, tmp_path / "b", pickled) == (
        f"{none}; pytorch_model.bin is a pickle, which is not read: save it as safetensors"
    )


def test_deepseeks_own_layout_is_told_where_the_same_weights_are(
    folder: Path, tmp_path: Path
) -> None:
    message = refused(folder, tmp_path, edited("config.json", model_type="multi_modality"))
    assert message.startswith(
        "config.json: model_type 'multi_modality' is the layout of DeepSeek's"
    )
    assert "deepseek-community/Janus-Pro-1B" in message


def test_a_tensor_that_no_shard_holds_is_named_and_never_left_random(
    folder: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    name = "model.generation_aligner.fc1.weight"

    def drop(copy: Path) -> None:
        index = json.loads((copy / "model.safetensors.index.json").read_text())
        shard = copy / index["weight_map"].pop(name)
        tensors = load_file(shard)
        del tensors[name]
        save_file(tensors, shard, {"format": "pt"})
        (copy / "model.safetensors.index.json").write_text(json.dumps(index))

    message = refused(folder, tmp_path, drop)
    assert message == f"folder: the tensor {name} is missing (1 in all)"


@pytest.mark.parametrize(
    "file", ["tokenizer.json", "tokenizer_config.json", "processor_config.json"]
)
def test_a_missing_file_of_the_processor_is_named(folder: Path, tmp_path: Path, file: str) -> None:
    message = refused(folder, tmp_path, lambda copy: (copy / file).unlink())
    assert message == f"{file}: missing; a processor has one"


def test_a_folder_without_a_chat_template_is_refused_before_any_prompt(
    folder: Path, tmp_path: Path
) -> None:
    message = refused(folder, tmp_path, lambda copy: (copy / "chat_template.jinja").unlink())
    assert message == "chat_template.jinja: missing; prompts are put into it"


def test_a_processor_without_image_tokens_is_refused(folder: Path, tmp_path: Path) -> None:
    def forget(copy: Path) -> None:
        path = copy / "tokenizer_config.json"
        config = json.loads(path.read_text())
        del config["boi_token"]
        path.write_text(json.dumps(config))

    message = refused(folder, tmp_path, forget)
    assert message == (
        "tokenizer_config.json: the processor has no image tokens: boi_token is missing"
    )


def test_an_image_token_that_the_vocabulary_lacks_is_refused(folder: Path, tmp_path: Path) -> None:
    def forget(copy: Path) -> None:
        path = copy / "tokenizer.json"
        path.write_text(path.read_text().replace("<boi>", "<gone>"))

    assert refused(folder, tmp_path, forget) == (
        "generation_config.json: generation_kwargs.boi_token_id: 4 does not fit the tokenizer, whose '<boi>' is 19"
    )
    # without that entry the tokenizer's own id counts, which transformers has added
    silent = tmp_path / "model"
    (silent / "generation_config.json").unlink()
    with pytest.raises(ModelError, match=r"the image start token is 19; .* vocabulary has 19"):
        load_pretrained(str(silent))


def test_an_image_start_that_is_not_the_tokenizers_is_refused(folder: Path, tmp_path: Path) -> None:
    change = edited("generation_config.json", "generation_kwargs", boi_token_id=5)
    assert refused(folder, tmp_path, change) == (
        "generation_config.json: generation_kwargs.boi_token_id: 5 does not fit the tokenizer, whose '<boi>' is 4"
    )


def test_a_model_too_short_for_a_prompt_is_refused(folder: Path, tmp_path: Path) -> None:
    change = edited("config.json", "text_config", max_position_embeddings=16)
    assert refused(folder, tmp_path, change) == (
        "config.json: a grid of 4 x 4 leaves no room for a prompt: text_config.max_position_embeddings is 16"
    )


def test_a_grid_that_does_not_fit_the_number_of_tokens_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    change = edited("config.json", "vision_config", num_image_tokens=15)
    assert "a grid of 4 x 4 does not fit vision_config.num_image_tokens, which says 15" in refused(
        folder, tmp_path, change
    )


# The hub ----------------------------------------------------------------------------------------------------------


def test_a_hub_id_in_the_local_cache_is_loaded_without_a_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--someone--Janus-Tiny"
    shutil.copytree(folder, repository / "snapshots" / "0123abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    assert load_pretrained("someone/Janus-Tiny").grid == (4, 4)


def test_a_hub_id_that_cannot_be_reached_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="not in the local cache, and the hub cannot be reached"):
        load_pretrained("someone/Janus-Tiny")


def test_a_download_that_breaks_off_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with tiny_hub(monkeypatch), pytest.raises(ModelError, match=r"hub: .*closed connection"):
        load_pretrained("someone/broken")
