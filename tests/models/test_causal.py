"""Described generators: language models of many architectures, templates, presets, and what does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_causal import (
    ARCHITECTURES,
    CODES,
    LEVELS,
    LIQUID,
    describe,
    rewritten,
    write_causal_lm,
    write_chameleon,
    write_cosmos,
)

import t2i_credit
from t2i_credit.api.export import export
from t2i_credit.api.launch import sampled_otherwise
from t2i_credit.api.sample import sample_to_folder
from t2i_credit.config.schema import load_config
from t2i_credit.errors import ConfigError, ModelError
from t2i_credit.interfaces import DifferentiableDecoder, Prompt
from t2i_credit.models import check_pretrained, description, load_pretrained
from t2i_credit.models.causal import CausalImageModel
from t2i_credit.rollout.sampling import sample_rollout

PROMPTS = [Prompt("a red circle"), Prompt("a photo of two blue square")]
TEXTS = [prompt.text for prompt in PROMPTS]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a language model `lm` and an image tokenizer `images`."""
    folder = tmp_path_factory.mktemp("described")
    write_causal_lm(folder / "lm")
    write_chameleon(folder / "images")
    return folder


@pytest.fixture
def parts(root: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(root, tmp_path / "parts")
    return tmp_path / "parts"


def refusal(place: Path) -> str:
    with pytest.raises(ModelError) as refused:
        load_pretrained(str(place))
    said = str(refused.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_language_model_of_any_architecture_scores_what_it_sampled(
    root: Path, tmp_path: Path, architecture: str
) -> None:
    write_causal_lm(tmp_path / "lm", architecture)
    model = load_pretrained(str(describe(tmp_path / "model.yaml", image_tokenizer=images(root))))
    rollout = sample_rollout(model, PROMPTS, group_size=2, cfg_scale=3.0, seed=0)
    with torch.no_grad():
        found = model(model.condition(TEXTS, [None, None]), rollout.tokens, want=("logprobs",))
    torch.testing.assert_close(found["logprobs"], rollout.logprobs, atol=1e-4, rtol=0)
    assert len(rollout.tokens.unique()) > 4 and rollout.images.shape == (4, 3, 8, 8)


def images(root: Path, **more: Any) -> dict[str, Any]:
    return {"kind": "chameleon", "path": str(root / "images"), **more}


def test_logits_are_those_of_the_whole_model_at_the_codes(root: Path) -> None:
    model = load_pretrained(str(describe(root / "whole.yaml")))
    condition = model.condition(TEXTS[:1], None)
    tokens = torch.arange(16)[None] % CODES
    with torch.no_grad():
        ours = model(condition, tokens, want=("logprobs",))["logprobs"][0]
        ids = torch.cat([condition.inputs, model.code_ids[tokens]], 1)
        logits = model.causal(input_ids=ids).logits[0, condition.inputs.shape[1] - 1 : -1]
    theirs = logits[:, model.code_ids].log_softmax(-1)[torch.arange(16), tokens[0]]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_prompts_stand_in_their_template_and_the_null_prompt_is_a_text_of_its_own(
    root: Path,
) -> None:
    model = load_pretrained(str(describe(root / "template.yaml")))
    condition = model.condition(["a red circle"], [None])
    said = model.text_tokenizer.batch_decode(condition.inputs)
    assert said[0].startswith("a red circle") and said[0].endswith("<boi>")
    assert said[1].endswith("<unconditional> <boi>") and said[1].count("<pad>") == 9
    # another text is a prompt like the first
    other = model.condition(["a red circle"], ["a blue circle"]).inputs[1]
    assert model.text_tokenizer.decode(other).startswith("a blue circle")


def test_padding_stands_in_the_prompts_place_where_there_is_no_null_prompt(root: Path) -> None:
    model = load_pretrained(str(describe(root / "padding.yaml", null_prompt=None)))
    positive, null = model.condition(["a red circle"], [None]).inputs
    assert null[:3].tolist() == [model.text_tokenizer.pad_token_id] * 3
    assert torch.equal(null[3:], positive[3:])


def test_a_preset_is_completed_by_what_a_file_says(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    lm, grid = root / "lm", "grid: [4, 4]"
    path.write_text(
        f"preset: liquid-7b\nlanguage_model: {lm}\n{grid}\nimage_tokenizer: {{path: {root}/images}}\n"
    )
    model = load_pretrained(str(path))
    assert isinstance(model, CausalImageModel) and model.grid == (4, 4)
    assert model.description.sampling.cfg_scale == 7.0
    assert model.description.null_prompt == "<unconditional><boi>"
    assert check_pretrained(str(path)) == "causal_image"


@pytest.mark.parametrize("name", description.presets())
def test_a_preset_alone_says_what_it_lacks(name: str) -> None:
    assert name in ("liquid-7b", "simplear-0.5b", "simplear-1.5b")
    assert f"`preset: {name}`" in refusal(Path(name))
    description.read_description(description.PRESETS / f"{name}.yaml")


def test_the_presets_have_the_published_settings() -> None:
    _, liquid = description.read_description(description.PRESETS / "liquid-7b.yaml")
    assert liquid.grid == [32, 32] and liquid.sampling.model_dump() == {
        "cfg_scale": 7.0,
        "temperature": 0.99,
        "top_k": 4096,
        "top_p": 0.96,
    }
    assert liquid.prompt == "{prompt} Generate an image based on this description.<boi>"
    _, small = description.read_description(description.PRESETS / "simplear-0.5b.yaml")
    assert small.image_tokenizer.levels == [8, 8, 8, 5, 5, 5] and small.image_tokenizer.frames
    assert small.prompt == "<|t2i|>A highly realistic image of {prompt}<|soi|>"
    assert (small.grid, small.sampling.cfg_scale) == ([64, 64], 6.0)


def test_a_run_of_a_described_generator_trains_and_exports(root: Path, tmp_path: Path) -> None:
    path = describe(root / "trained.yaml")
    config = {
        "model": {"name": str(path)},
        "tune": {"lora_rank": 2},
        "prompts": {"source": "shapes", "per_step": 2},
        "rollout": {"group_size": 2, "cfg_scale": 3.0, "top_k": 12, "top_p": 0.9},
        "reward": {"toys:bright": {}},
        "credit": {"name": "visual"},
        "train": {"steps": 2, "out": str(tmp_path), "name": "run"},
    }
    run = t2i_credit.train(config)
    trained = t2i_credit.load_model(run)
    assert trained.description.grid == [4, 4]
    export(str(run), tmp_path / "exported")
    again = load_pretrained(str(tmp_path / "exported"))
    tokens = torch.arange(16)[None] % CODES
    with torch.no_grad():
        ours, theirs = (
            m(m.condition(TEXTS[:1], None), tokens, want=("logprobs",))["logprobs"]
            for m in (trained, again)
        )
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_a_described_generator_is_sampled_as_its_description_says(
    root: Path, tmp_path: Path
) -> None:
    path = describe(root / "sampled.yaml")
    settings: dict[str, Any] = {"count": 2, "cfg_scale": None, "temperature": None, "seed": 0}
    sample_to_folder(str(path), "a red circle", None, **settings, out=tmp_path / "a")
    told = json.loads((tmp_path / "a" / "samples.json").read_text())
    assert {name: told[name] for name in LIQUID["sampling"]} == LIQUID["sampling"]
    settings |= {"cfg_scale": 2.0, "temperature": 0.5}
    sample_to_folder(str(path), "a red circle", None, **settings, out=tmp_path / "b")
    told = json.loads((tmp_path / "b" / "samples.json").read_text())
    assert (told["cfg_scale"], told["temperature"], told["top_k"]) == (2.0, 0.5, 20)


WRONG = {
    "codes reach beyond the head": ({"codes": 30}, "codes: 24 of them reach to place 53"),
    "codes given twice": ({"codes": [0] * CODES}, "codes: 24 places, 1 of them different"),
    "a code that is missing": ({"codes": list(range(CODES - 1))}, "the image tokenizer has 24"),
    "a code below zero": ({"codes": -1}, "codes"),
    "no prompt": ({"prompt": "an image<boi>"}, "prompt: holds {prompt} 0 times"),
    "a marker of many tokens": ({"prompt": "{prompt}<begin image>"}, "'<begin image>' is "),
    "another marker": ({"null_prompt": "<nothing here>"}, "null_prompt: "),
    "a row end of two tokens": ({"row_end": "red circle"}, "row_end: 'red circle' is 2 tokens"),
    "a grid that leaves no room": ({"grid": [16, 16]}, "grid: 16 x 16 tokens leave no room"),
    "a grid of nothing": ({"grid": [0, 4]}, "grid: [0, 4] is not allowed; rows and columns"),
    "a grid of one side": ({"grid": [4]}, "grid: [4] is not allowed; rows and columns"),
    "a grid of words": ({"grid": ["four", 4]}, "grid: ['four', 4] is not allowed; rows"),
    "a grid of one number": ({"grid": 16}, "grid: 16 is not allowed; rows and columns"),
    "no grid": ({"grid": None}, "grid: missing; rows and columns"),
    "codes of another word": ({"codes": "aftertext"}, "codes: 'aftertext' is not allowed; after_t"),
    "codes on special tokens": ({"codes": 0}, "codes: place 0 of the vocabulary is a special to"),
    "codes on a marker": ({"codes": 9, "row_end": "a"}, "place 9 of the vocabulary is the row end"),
    "an unknown key": ({"offset": 7}, "offset: unknown key (allowed: model_type"),
    "a misspelt key": ({"nul_prompt": "x"}, "nul_prompt: unknown key; did you mean null_prompt?"),
    "a misspelt inner key": (
        {"image_tokenizer": {"kind": "chameleon", "pth": "images"}},
        "image_tokenizer.pth: unknown key; did you mean path? (allowed: kind, path",
    ),
    "a text for a number": (
        {"sampling": {"cfg_scale": "three"}},
        "sampling.cfg_scale: 'three' is not allowed; a number, 0 to 100",
    ),
    "no type": ({"model_type": None}, "model_type: missing; 'causal_image' says"),
    "another kind": ({"image_tokenizer": {"kind": "vqgan", "path": "images"}}, "known: chameleon"),
    "no image tokenizer": (
        {"image_tokenizer": {"kind": "chameleon", "path": "nothing"}},
        "image_tokenizer.path: 'nothing': no such folder",
    ),
    "files of another kind": (
        {"image_tokenizer": {"kind": "vq_model", "path": "images"}},
        "model.yaml: image_tokenizer, of kind vq_model: ",
    ),
    "no language model": ({"language_model": "nothing"}, "language_model: 'nothing': no such"),
    "an encoder of pictures": ({"architecture": "vit"}, "no causal language model"),
    "an architecture nobody knows": ({"architecture": "os:abort"}, "no causal language model"),
    "sampling of nothing": ({"sampling": {"top_p": 0.0}}, "sampling.top_p: 0.0 is not allowed"),
    "another type": ({"model_type": "janus"}, "model_type: 'janus' is not allowed"),
    "levels of nothing": (
        {"image_tokenizer": {"kind": "torchscript", "path": "images"}},
        "image_tokenizer.levels: missing",
    ),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_a_description_that_does_not_fit_is_one_line(parts: Path, case: str) -> None:
    keys, said = WRONG[case]
    place = describe(parts / "model.yaml", **keys)
    found = refusal(place)
    assert said in found and str(parts) in found


def test_a_description_is_no_recipe_and_a_missing_file_no_folder(parts: Path) -> None:
    place = describe(parts / "model.yaml")
    with pytest.raises(ConfigError, match="describes a model, and is no recipe; a recipe names it"):
        load_config(str(place))
    assert "no such file" in refusal(parts / "modle.yaml")


def test_a_training_under_another_sampling_says_so(root: Path) -> None:
    path = describe(root / "said.yaml")
    config = load_config("shapes/grpo", [f"model.name={path}", "rollout.cfg_scale=7"])
    said = sampled_otherwise(config)
    assert said is not None
    assert said.endswith(
        "at temperature 0.99, top_k 20, top_p 0.96; this run samples at rollout.temperature=1, "
        "rollout.top_k=0, rollout.top_p=1"
    )
    same = ["rollout.temperature=0.99", "rollout.top_k=20", "rollout.top_p=0.96"]
    assert (
        sampled_otherwise(
            load_config("shapes/grpo", [f"model.name={path}", "rollout.cfg_scale=7", *same])
        )
        is None
    )
    assert sampled_otherwise(load_config("shapes/grpo")) is None
    alone = describe(root / "alone.yaml", sampling={"cfg_scale": 6.0})
    said = sampled_otherwise(load_config("shapes/grpo", [f"model.name={alone}"]))
    assert said is not None and said.endswith(
        "at cfg_scale 6; this run samples at rollout.cfg_scale=2"
    )


def test_a_layer_that_looks_back_less_far_than_the_image_is_refused(parts: Path) -> None:
    write_causal_lm(parts / "lm", "mistral", sliding_window=12)
    assert "are more than the 12 that a layer" in refusal(describe(parts / "model.yaml"))
    write_causal_lm(parts / "lm", "mistral", sliding_window=40)
    model = load_pretrained(str(describe(parts / "model.yaml")))
    assert model.prompt_limit == 40 - 15 - 1


def test_an_image_tokenizer_of_another_size_is_refused(parts: Path) -> None:
    write_chameleon(parts / "images", codes=40)
    assert "codes: 40 of them reach to place" in refusal(describe(parts / "model.yaml"))


def test_a_head_that_is_no_linear_layer_is_refused(
    parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CausalImageModel, "head", lambda self, x: x[..., :CODES] * 3)
    assert "makes its logits in a way" in refusal(describe(parts / "model.yaml"))


def test_damaged_parts_are_one_line(parts: Path) -> None:
    place = describe(parts / "model.yaml")
    rewritten(parts / "lm", lambda t: {n: x for n, x in t.items() if "layers.1.mlp" not in n})
    assert "layers.1.mlp" in refusal(place)
    (parts / "lm" / "tokenizer.json").unlink()
    assert "tokenizer.json: missing" in refusal(place)
    place.write_text("model_type: causal_image\ngrid: [4, 4\n")
    assert "model.yaml: line" in refusal(place)
    place.write_text("- 1\n")
    assert "holds no keys" in refusal(place)


def test_a_folder_that_somebody_made_names_nothing_outside_of_it(parts: Path) -> None:
    whole = load_pretrained(str(describe(parts / "model.yaml")))
    whole.save_pretrained(parts / "whole")
    config = parts / "whole" / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"language_model"', '"language_model": "../lm", "x"', 1))
    assert "leads out of the folder" in refusal(parts / "whole") or "unknown key" in refusal(
        parts / "whole"
    )
    config.write_text(text.replace(': "language_model"', ': "../lm"'))
    assert "leads out of the folder" in refusal(parts / "whole")


def test_a_tokenizer_in_torchscript_without_cosmos_parts_has_no_gradient(parts: Path) -> None:
    shutil.rmtree(parts / "images")
    write_cosmos(parts / "images", frames=False)
    keys = {"kind": "torchscript", "path": "images", "levels": LEVELS, "factor": 2}
    assert isinstance(
        load_pretrained(str(describe(parts / "a.yaml", image_tokenizer=keys))),
        DifferentiableDecoder,
    )
    write_cosmos(parts / "images", frames=False, whole=True)
    model = load_pretrained(str(describe(parts / "b.yaml", image_tokenizer=keys)))
    assert not isinstance(model, DifferentiableDecoder)
    assert model.decode(torch.arange(16)[None] % CODES).shape == (1, 3, 8, 8)
