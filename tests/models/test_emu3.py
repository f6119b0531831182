"""Emu3 against transformers' own: logits, greedy images under guidance, line ends, code ids, pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damaged_folders import edited, refused
from emu3_upstream import greedy_rows
from tiny_checkpoints import TEXTS, tiny_emu3, write_tiny_emu3
from transformers import Emu3ForConditionalGeneration, Emu3Processor

from t2i_credit.errors import ModelError
from t2i_credit.interfaces import Prompt
from t2i_credit.models import load_pretrained
from t2i_credit.models.emu3 import Emu3ImageModel
from t2i_credit.rollout.sampling import sample_rollout


@pytest.fixture(scope="module", params=[True, False], ids=["ids in a row", "ids in disorder"])
def model(request: pytest.FixtureRequest) -> Emu3ImageModel:
    return Emu3ImageModel(*tiny_emu3(in_a_row=request.param))


def as_upstream(model: Emu3ImageModel, texts: list[str]) -> Any:
    """What transformers' documentation feeds to `generate`."""
    return model.processor(
        text=texts,
        return_for_image_generation=True,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )


def vocabulary_ids(model: Emu3ImageModel, tokens: torch.Tensor) -> torch.Tensor:
    """(B, H * W) codes to (B, H * (W + 1)) ids with line ends, by transformers' own mapping."""
    mapping = model.emu3.vocabulary_mapping
    return mapping.convert_img2bpe(tokens.unflatten(1, model.grid).flatten(0, 1)).reshape(
        len(tokens), -1
    )


def test_prompts_are_encoded_as_the_processor_does(model: Emu3ImageModel) -> None:
    theirs, ours = as_upstream(model, TEXTS), model.condition(TEXTS, None)
    assert model.grid == tuple(theirs["image_sizes"][0]) == (2, 3)
    assert torch.equal(ours.inputs, theirs["input_ids"])
    assert torch.equal(ours.attention_mask, theirs["attention_mask"].bool())


def test_the_null_prompt_is_the_empty_text(model: Emu3ImageModel) -> None:
    null, empty = (model.condition(TEXTS[:1], [negative]) for negative in (None, ""))
    assert torch.equal(null.inputs, empty.inputs)


def test_the_logits_over_image_codes_are_those_of_emu3s_own_forward(model: Emu3ImageModel) -> None:
    inputs = as_upstream(model, TEXTS)
    tokens = torch.randint(20, (2, 6), generator=torch.Generator().manual_seed(0))
    image = vocabulary_ids(model, tokens)  # 4 ids a row
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(image)], 1)
    with torch.no_grad():
        logits = model.emu3(torch.cat([inputs["input_ids"], image], 1), attention_mask=mask).logits
    before = inputs["input_ids"].shape[1] - 1
    places = before + torch.tensor([0, 1, 2, 4, 5, 6])  # the fourth of a row is its line end
    mapping = model.emu3.vocabulary_mapping
    ids = torch.tensor([mapping.img2bpe[code] for code in range(20)])
    expected = logits[:, places][:, :, ids]
    state = model.expand(model.prefill(model.condition(TEXTS, None)), 1)
    cached = [model.advance(state, None if t == 0 else tokens[:, t - 1])[0] for t in range(6)]
    torch.testing.assert_close(torch.stack(cached, 1), expected, atol=1e-4, rtol=0)
    scored = model(model.condition(TEXTS, None), tokens, want=["logprobs"])["logprobs"]
    taken = expected.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    torch.testing.assert_close(scored, taken, atol=1e-4, rtol=0)


def test_greedy_images_are_those_of_emu3s_own_generation(model: Emu3ImageModel) -> None:
    inputs, nothing = as_upstream(model, TEXTS), as_upstream(model, ["", ""])
    inputs.pop("image_sizes")
    rows = greedy_rows(model.emu3, inputs, nothing, *model.grid)
    expected = model.emu3.vocabulary_mapping.convert_bpe2img(rows).flatten(1)
    settings: dict[str, Any] = {"group_size": 1, "top_k": 1, "seed": 0}
    ours = sample_rollout(model, [Prompt(t) for t in TEXTS], cfg_scale=3.0, **settings)
    assert torch.equal(ours.tokens, expected.long())
    plain = sample_rollout(model, [Prompt(t) for t in TEXTS], cfg_scale=1.0, **settings)
    assert not torch.equal(plain.tokens, ours.tokens)  # guidance matters


def test_pixels_are_those_of_emu3s_own_decoding(model: Emu3ImageModel) -> None:
    tokens = torch.randint(20, (2, 6), generator=torch.Generator().manual_seed(0))
    ids = vocabulary_ids(model, tokens)
    closing = ids.new_zeros(2, 3)  # end of frame, image and text, which decode_image_tokens drops
    pixels = model.emu3.decode_image_tokens(
        image_tokens=torch.cat([ids, closing], 1), height=2, width=3
    )
    shown = model.processor.postprocess(list(pixels), return_tensors="PIL.Image.Image")
    for image, picture in zip(model.decode(tokens), shown["pixel_values"], strict=True):
        there = torch.from_numpy(np.array(picture)) / 255  # (16, 24, 3), cut to whole steps
        assert (image.permute(1, 2, 0) - there).abs().max() <= 1.001 / 255


def test_codes_are_those_of_emu3s_own_encoding(model: Emu3ImageModel) -> None:
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    scale = model.image_tokenizer.scale
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (scale.mean, scale.std))
    sizes = torch.tensor([[16, 24]] * 2)
    with torch.no_grad():
        ids = model.emu3.model.get_image_tokens((images - mean) / std, sizes)
    assert torch.equal(vocabulary_ids(model, model.encode(images)).flatten(), ids)


def test_a_square_grid_has_its_line_ends_in_other_places() -> None:
    model = Emu3ImageModel(*tiny_emu3(ratio="1:1", area=576))
    assert model.grid == (3, 3) and model.image_inputs == 8 + 2
    # after raster position r the next code is predicted by input r + number of rows that ended
    assert model.predicting(0, 8).tolist() == [0, 1, 3, 4, 5, 7, 8, 9]
    assert model.predicting(5, 1).tolist() == [1] and model.predicting(4, 1).tolist() == [0]


def test_the_size_of_images_survives_saving(tmp_path: Path) -> None:
    write_tiny_emu3(tmp_path / "first", ratio="1:1", area=576)
    load_pretrained(str(tmp_path / "first")).save_pretrained(tmp_path / "second")
    assert load_pretrained(str(tmp_path / "second")).grid == (3, 3)
    Emu3Processor.from_pretrained(tmp_path / "second")
    Emu3ForConditionalGeneration.from_pretrained(tmp_path / "second")


def test_a_vocabulary_without_some_image_token_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_emu3(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    del config["vocabulary_map"]["<|visual token 000007|>"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ModelError, match=r"config\.json: vocabulary_map: no image token for code 7"
    ):
        load_pretrained(str(folder))
    (folder / "config.json").write_text(json.dumps({**config, "vocabulary_map": None}))
    with pytest.raises(ModelError, match=r"config\.json: vocabulary_map: missing"):
        load_pretrained(str(folder))


# Damaged folders --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_emu3(tmp_path_factory.mktemp("models") / "emu3")


def test_a_missing_shard_is_named(folder: Path, tmp_path: Path) -> None:
    shard = sorted(folder.glob("model-*.safetensors"))[2].name
    message = refused(folder, tmp_path, lambda copy: (copy / shard).unlink())
    assert message == f"{shard}: missing; model.safetensors.index.json names it"


@pytest.mark.parametrize(
    "file", ["tokenizer.json", "tokenizer_config.json", "processor_config.json"]
)
def test_a_missing_file_of_the_processor_is_named(folder: Path, tmp_path: Path, file: str) -> None:
    message = refused(folder, tmp_path, lambda copy: (copy / file).unlink())
    assert message == f"{file}: missing; a processor has one"


@pytest.mark.parametrize("name", ["boi_token", "image_wrapper_token"])
def test_a_processor_without_image_tokens_is_refused(
    folder: Path, tmp_path: Path, name: str
) -> None:
    message = refused(folder, tmp_path, edited("tokenizer_config.json", **{name: None}))
    assert message == (
        f"tokenizer_config.json: the processor has no image tokens: {name} is missing"
    )


def test_an_image_token_that_the_vocabulary_lacks_is_refused(folder: Path, tmp_path: Path) -> None:
    def forget(copy: Path) -> None:
        content = json.loads((copy / "tokenizer.json").read_text())
        start = "<|image start|>"
        del content["model"]["vocab"][start]
        content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != start]
        (copy / "tokenizer.json").write_text(json.dumps(content))

    assert refused(folder, tmp_path, forget) == (
        "config.json: vocabulary_map: <|image start|> is 5; in the tokenizer it is 42"
    )


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ({"ratio": "3x2"}, "ratio: '3x2' is not allowed; width:height, such as 4:3"),
        ({"ratio": "0:1"}, "ratio: '0:1' is not allowed; width:height, such as 4:3"),
        ({"ratio": 1.5}, "ratio: 1.5 is not allowed; width:height, such as 4:3"),
        ({"image_area": "big"}, "image_area: 'big' is not allowed; a number of pixels"),
        ({"image_area": 0}, "image_area: 0 is not allowed; a number of pixels"),
        ({"image_area": 9}, "image_area: 9 is not allowed at ratio 3:2: 0 x 0 tokens"),
        (
            {"ratio": "1:1", "image_area": 518400},  # 90 x 90 tokens and 90 line ends
            "image_area: 518400 is not allowed: 90 x 90 tokens leave no room for a prompt; the model has 128 positions",
        ),
    ],
)
def test_a_size_that_gives_no_grid_is_named(
    folder: Path, tmp_path: Path, size: dict[str, Any], reason: str
) -> None:
    message = refused(folder, tmp_path, edited("processor_config.json", **size))
    assert message == f"processor_config.json: {reason}"
