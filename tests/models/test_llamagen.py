"""LlamaGen against tensors recorded from the official code, its published names, its text features, damaged files."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from damaged_folders import refused
from official_llamagen import official_gpt, official_vq
from safetensors.torch import load_file, save_file
from tiny_checkpoints import TEXTS, write_tiny_llamagen, write_tiny_t5
from torch import Tensor

from t2i_credit.models import load_pretrained, torch_files
from t2i_credit.models.llamagen import GridRotary, LlamaGenModel, RecentFeatures
from t2i_credit.models.llamagen_files import from_published, to_published


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llamagen(tmp_path_factory.mktemp("models") / "llamagen")


@pytest.fixture(scope="module")
def model(folder: Path) -> LlamaGenModel:
    return load_pretrained(str(folder))


# The official code ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    if not os.environ.get("LLAMAGEN_VECTORS"):
        pytest.skip("LLAMAGEN_VECTORS does not name the folder of recorded tensors")
    return load_file(Path(os.environ["LLAMAGEN_VECTORS"]) / "vectors.safetensors")


@pytest.fixture(scope="module")
def official(recorded: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("official")
    for name in ("t2i_tiny.pt", "vq_tiny.pt"):
        shutil.copy(Path(os.environ["LLAMAGEN_VECTORS"]) / name, folder)
    config = {"model_type": "llamagen_t2i", "grid": 4, "heads": 4}
    config |= {"gpt": "t2i_tiny.pt", "vq": "vq_tiny.pt"}
    (folder / "config.json").write_text(json.dumps(config))
    return load_pretrained(str(folder))


def conditioned(model: LlamaGenModel, captions: Tensor) -> Any:
    null = model.caption_embedding.uncond_embedding
    return model.feature_condition([*captions, *[null] * len(captions)], len(captions))


def test_cached_decoding_gives_the_official_logits(
    official: LlamaGenModel, recorded: dict[str, Tensor]
) -> None:
    state = official.expand(official.prefill(conditioned(official, recorded["caption"])), 1)
    tokens = recorded["tokens"]
    steps = [official.advance(state, None if t == 0 else tokens[:, t - 1]) for t in range(16)]
    for i, name in enumerate(("logits", "null_logits")):
        ours = torch.stack([step[i] for step in steps], 1)
        torch.testing.assert_close(ours, recorded[name], atol=1e-4, rtol=0)


def test_the_training_pass_gives_the_official_logprobs(
    official: LlamaGenModel, recorded: dict[str, Tensor]
) -> None:
    tokens, condition = recorded["tokens"], conditioned(official, recorded["caption"])
    with torch.no_grad():
        found = official(condition, tokens, want=["logprobs", "negative_logprobs"])
    for ours, theirs in (("logprobs", "logits"), ("negative_logprobs", "null_logits")):
        expected = recorded[theirs].log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        torch.testing.assert_close(found[ours], expected, atol=1e-4, rtol=0)


def test_images_and_codes_are_the_official_ones(
    official: LlamaGenModel, recorded: dict[str, Tensor]
) -> None:
    assert torch.equal(official.encode(recorded["image"] / 2 + 0.5), recorded["image_tokens"])
    expected = (recorded["decoded"] / 2 + 0.5).clamp(0, 1)
    shown = official.decode(recorded["image_tokens"])
    torch.testing.assert_close(shown, expected, atol=1e-4, rtol=0)


def test_the_published_tensors_come_back_bit_for_bit(
    official: LlamaGenModel, recorded: dict[str, Tensor]
) -> None:
    path = Path(os.environ["LLAMAGEN_VECTORS"]) / "t2i_tiny.pt"
    published = torch.load(path, weights_only=True)["model"]
    ours = to_published(official)
    assert ours.keys() == published.keys()
    for name, tensor in published.items():
        assert torch.equal(ours[name], tensor), name


# Text and positions -----------------------------------------------------------------------------------------------


def test_positions_of_the_caption_turn_nothing_and_let_nothing_through() -> None:
    rotary = GridRotary(side=3, caption=2, head_dim=8)
    cos, sin = rotary(torch.zeros(1), torch.arange(2 + 9)[None])
    assert cos.shape == (1, 11, 8)
    assert not cos[0, :2].any() and not sin[0, :2].any()
    # the fourth image position is row 1, column 0: pairs 0 and 1 turn with the row (1 and 1 / 100 rad), 2 and 3 not
    angles = torch.tensor([1.0, 0.01, 0.0, 0.0] * 2)
    torch.testing.assert_close(cos[0, 2 + 3], angles.cos())
    torch.testing.assert_close(sin[0, 2 + 3], angles.sin())


def test_the_null_prompt_is_the_learned_embedding_at_the_positives_places(
    model: LlamaGenModel,
) -> None:
    condition = model.condition(TEXTS, [None, None])
    lengths = condition.attention_mask.sum(1).tolist()
    assert lengths == [4, 12, 4, 12]  # words and </s>
    null = model.caption_embedding.uncond_embedding
    assert torch.equal(condition.inputs[2, -4:], null[-4:])
    assert torch.equal(condition.inputs[3], null)


def test_text_features_are_computed_once_per_prompt(folder: Path) -> None:
    model = load_pretrained(str(folder))
    runs: list[int] = []
    model.t5.register_forward_hook(lambda *_: runs.append(1))
    first = model.condition([TEXTS[0], TEXTS[0]], [TEXTS[1], None])
    again = model.condition([TEXTS[0].upper(), TEXTS[0]], [TEXTS[1], None])
    assert len(runs) == 3  # two texts, and one in other letters
    assert torch.equal(first.inputs, again.inputs)


def test_captions_whose_end_is_cut_are_counted(model: LlamaGenModel) -> None:
    """The tiny model takes 12 tokens: the second text fills them with its </s>."""
    assert model.check(TEXTS) == []
    first, second = (TEXTS[1] + end for end in (" blue", " red"))
    condition = model.condition([first, second], None)
    assert torch.equal(condition.inputs[0], condition.inputs[1])  # what is to be said
    (line,) = model.check([*TEXTS, first, second])
    assert line.startswith(
        "the model reads 12 tokens of a prompt: the end of 2 of 4 changes nothing"
    )
    assert "the longest has 13: " in line


def test_the_features_of_a_caption_not_seen_lately_are_let_go() -> None:
    made: list[str] = []

    def features(text: str) -> Tensor:
        return recent.get(text, lambda: made.append(text) or torch.zeros(1))

    recent = RecentFeatures(most=2)
    for text in ("a", "b", "a", "c", "a", "b"):  # c takes the place of b, which was seen before a
        features(text)
    assert made == ["a", "b", "c", "b"] and list(recent.found) == ["a", "b"]


def test_a_copy_of_the_model_holds_no_second_set_of_features(folder: Path) -> None:
    model = load_pretrained(str(folder))
    first = model.condition(TEXTS, None)
    twin = copy.deepcopy(model)
    assert twin.recent_features is model.recent_features
    twin.t5.register_forward_hook(lambda *_: pytest.fail("computed again"))
    assert torch.equal(twin.condition(TEXTS, None).inputs, first.inputs)


def test_the_names_of_the_transformer_survive_both_ways(folder: Path, model: LlamaGenModel) -> None:
    published = torch.load(folder / "gpt.pt", weights_only=True)["model"]
    ours = to_published(model)
    assert ours.keys() == published.keys()
    assert all(torch.equal(ours[name], tensor) for name, tensor in published.items())
    assert all(
        torch.equal(model.state_dict()[n], t) for n, t in from_published(published, 2).items()
    )


def test_half_precision_weights_keep_their_format_and_positions_stay_exact(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "half")
    tensors(lambda gpt: gpt.update({k: t.bfloat16() for k, t in gpt.items()}))(tmp_path / "half")
    half = load_pretrained(str(tmp_path / "half"))
    parts = (half.language_model, half.output, half.caption_embedding)
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.bfloat16}
    assert half.language_model.rotary_emb.cos.dtype == torch.float32
    tokens = torch.zeros(2, 9, dtype=torch.long)
    with torch.no_grad():
        found = half(half.condition(TEXTS, [None, TEXTS[0]]), tokens, want=["negative_logprobs"])
    assert found["negative_logprobs"].dtype == torch.float32


# Published sizes --------------------------------------------------------------------------------------------------

# layers, heads, width, inner width (2/3 of 4 x width, up to a multiple of 256): GPT_B, GPT_L and GPT_XL of the
# official gpt.py, and the millions of parameters that the official README tells of the class-conditional ones; of the
# image tokenizer it tells 72
PUBLISHED = {
    "B": (12, 12, 768, 2048, 111),
    "L": (24, 16, 1024, 2816, 343),
    "XL": (36, 20, 1280, 3584, 775),
}


def millions(parameters: Any) -> int:
    return round(sum(p.numel() for p in parameters) / 1e6)


@pytest.mark.parametrize("size", list(PUBLISHED))
def test_the_published_names_and_shapes_are_those_of_the_model(
    tmp_path: Path, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # views of one number stand for gigabytes
    monkeypatch.setattr(torch_files, "_is_held", lambda tensor: True)
    layers, heads, width, inner, published = PUBLISHED[size]
    gpt = official_gpt(layers, width, inner)
    torch.save({"model": gpt}, tmp_path / "gpt.pt")
    torch.save({"model": official_vq()}, tmp_path / "vq.pt")
    config = {"model_type": "llamagen_t2i", "grid": 16, "heads": heads}
    config |= {"gpt": "gpt.pt", "vq": "vq.pt"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        model = load_pretrained(str(tmp_path))
    assert {n: t.shape for n, t in to_published(model).items()} == {
        n: t.shape for n, t in gpt.items()
    }
    # in place of captions the published number counts the embeddings of 1,000 classes and of none
    parameters = [*model.language_model.parameters(), *model.output.parameters()]
    assert millions([*parameters, torch.empty(1001, width, device="meta")]) == published
    assert millions(model.vq.parameters()) == 72
    assert model.image_size == (256, 256) and model.codebook_size == 16384


# Damaged files ----------------------------------------------------------------------------------------------------


def tensors(edit: Callable[[dict[str, Tensor]], object], file: str = "gpt.pt") -> Any:
    def change(copy: Path) -> None:
        content = torch.load(copy / file, weights_only=True)
        edit(content["model"])
        torch.save(content, copy / file)

    return change


@pytest.mark.parametrize("file", ["gpt.pt", "vq.pt"])
def test_a_missing_file_is_named(folder: Path, tmp_path: Path, file: str) -> None:
    message = refused(folder, tmp_path, lambda copy: (copy / file).unlink())
    assert message == f"{file}: missing; config.json names it as {file[:-3]}"


def test_a_pickle_that_would_run_code_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    message = refused(
        folder,
        tmp_path,
        lambda copy: (copy / "gpt.pt").write_bytes(pickle.dumps(Trap(), protocol=2)),
    )
    assert message.startswith("gpt.pt: damaged, or more than tensors: a pickle that holds more")
    assert "weights_only" not in message and "\x1b" not in message
    assert not (tmp_path / "ran").exists()


def test_a_missing_tensor_is_named(folder: Path, tmp_path: Path) -> None:
    change = tensors(lambda gpt: gpt.pop("layers.1.attention.wo.weight"))
    assert "language_model.layers.1.self_attn.o_proj.weight is missing" in refused(
        folder, tmp_path, change
    )


def test_a_class_conditional_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    change = tensors(lambda gpt: gpt.pop("cls_embedding.uncond_embedding"))
    assert "cls_embedding.uncond_embedding is missing; is this a LlamaGen checkpoint?" in refused(
        folder, tmp_path, change
    )


def test_a_tensor_that_the_architecture_lacks_is_named(folder: Path, tmp_path: Path) -> None:
    change = tensors(lambda gpt: gpt.update({"layers.0.gate.weight": torch.zeros(2)}))
    assert "gate.weight belongs to another architecture" in refused(folder, tmp_path, change)


@pytest.mark.parametrize("shape", [(16 * 32,), (4, 4, 32)])
def test_a_tensor_of_other_dimensions_is_named(
    folder: Path, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    change = tensors(
        lambda gpt: gpt.update({"tok_embeddings.weight": torch.zeros(16, 32).reshape(shape)})
    )
    message = refused(folder, tmp_path, change)
    assert message == f"gpt.pt: tok_embeddings.weight has shape {shape}; it needs 2 dimensions"


def test_grouped_queries_are_refused(folder: Path, tmp_path: Path) -> None:
    name = "layers.1.attention.wqkv.weight"
    change = tensors(lambda gpt: gpt.update({name: gpt[name][:64].clone()}))
    assert refused(folder, tmp_path, change) == (
        f"gpt.pt: {name} has shape (64, 32); the model needs (96, 32)"
    )


def test_an_image_tokenizer_of_another_layout_is_refused(folder: Path, tmp_path: Path) -> None:
    def rename(vq: dict[str, Tensor]) -> None:
        for name in [name for name in vq if "conv_blocks" in name]:
            vq[name.replace("conv_blocks", "stages")] = vq.pop(name)

    assert refused(folder, tmp_path, tensors(rename, "vq.pt")) == (
        "vq.pt: the tensor encoder.conv_blocks.0.res.0.conv2.weight is missing; is this a LlamaGen checkpoint?"
    )


def test_an_image_tokenizer_of_uneven_channels_is_refused(folder: Path, tmp_path: Path) -> None:
    change = tensors(
        lambda vq: vq.update({"encoder.conv_in.weight": torch.zeros(24, 3, 3, 3)}), "vq.pt"
    )
    assert refused(folder, tmp_path, change).startswith("vq.pt: 24 channels, and [32, 64] in the")


def test_a_text_encoder_that_lacks_a_tensor_is_refused_and_never_left_random(
    folder: Path, tmp_path: Path
) -> None:
    name = "encoder.block.0.layer.1.DenseReluDense.wo.weight"

    def drop(copy: Path) -> None:
        weights = load_file(copy / "t5/model.safetensors")
        del weights[name]
        save_file(weights, copy / "t5/model.safetensors", {"format": "pt"})

    assert f"the tensor {name} is missing (1 in all)" in refused(folder, tmp_path, drop)


def test_a_text_encoder_without_a_tokenizer_is_refused_and_gets_no_empty_one(
    folder: Path, tmp_path: Path
) -> None:
    def forget(copy: Path) -> None:
        (copy / "t5/tokenizer.json").unlink()
        (copy / "t5/tokenizer_config.json").unlink()

    message = refused(folder, tmp_path, forget)
    assert message == "t5/tokenizer.json: missing; a text encoder has one"


def test_a_text_encoder_of_another_width_is_refused(folder: Path, tmp_path: Path) -> None:
    def widen(copy: Path) -> None:
        shutil.rmtree(copy / "t5")
        write_tiny_t5(copy / "t5", 16)

    assert refused(folder, tmp_path, widen) == "t5: a text encoder of width 16; gpt.pt takes 24"


@pytest.mark.parametrize(("key", "value"), [("heads", 5), ("heads", 0), ("grid", "large")])
def test_a_size_that_does_not_fit_is_named(
    folder: Path, tmp_path: Path, key: str, value: Any
) -> None:
    def change(copy: Path) -> None:
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, key: value}))

    assert refused(folder, tmp_path, change).startswith(f"config.json: {key}: ")
