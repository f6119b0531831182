"""The embedded generator on disk: it comes back bit for bit, and damaged folders are named."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from embedded_scores import NEGATIVES, TEXTS, scores, some_tokens
from safetensors.torch import load_file, save_file
from toys import tiny_model, write_tiny_model

from t2i_credit.errors import ModelError
from t2i_credit.models import MODELS, embedded_names, load_pretrained
from t2i_credit.models.embedded_model import EmbeddedModel


@pytest.fixture(scope="module")
def model() -> EmbeddedModel:
    return tiny_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_a_saved_model_comes_back_bit_for_bit(model: EmbeddedModel, folder: Path) -> None:
    loaded = load_pretrained(str(folder))
    assert type(loaded) is EmbeddedModel and not loaded.training
    assert loaded.config == model.config
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    trained = {name for name, p in loaded.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and not any(name.startswith("vq.") for name in trained)
    tokens = some_tokens(4, model)
    conditions = [m.condition(TEXTS, NEGATIVES) for m in (model, loaded)]
    assert torch.equal(scores(model, conditions[0], tokens), scores(loaded, conditions[1], tokens))
    assert torch.equal(model.decode(tokens), loaded.decode(tokens))


def test_a_model_saved_twice_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    load_pretrained(str(folder)).save_pretrained(tmp_path / "again")
    for file in FILES:
        if file != "text_tokenizer/tokenizer_config.json":  # transformers notes where it came from
            assert (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes(), file


def test_the_parts_of_a_folder_are_in_the_format_of_their_libraries(
    folder: Path, model: EmbeddedModel
) -> None:
    from diffusers import VQModel
    from transformers import AutoTokenizer, LlamaModel

    vq = VQModel.from_pretrained(folder / "vq")
    assert torch.equal(vq.quantize.embedding.weight, model.codebook)
    llama = LlamaModel.from_pretrained(folder / "transformer")
    assert torch.equal(llama.norm.weight, model.language_model.norm.weight)
    words = AutoTokenizer.from_pretrained(folder / "text_tokenizer")
    assert (
        words("a red circle")["input_ids"] == model.condition(TEXTS, None).inputs[0, -4:-1].tolist()
    )


FILES = (
    "config.json",
    "image_layers.safetensors",
    "text_tokenizer/tokenizer.json",
    "text_tokenizer/tokenizer_config.json",
    "transformer/config.json",
    "transformer/model.safetensors",
    "vq/config.json",
    "vq/diffusion_pytorch_model.safetensors",
)
JSON = [name for name in FILES if name.endswith(".json")]
TENSORS = [name for name in FILES if name.endswith(".safetensors")]


def refused(original: Path, tmp_path: Path, change: Callable[[Path], object]) -> str:
    """What loading says of a changed copy of the folder."""
    copy = tmp_path / "model"
    shutil.copytree(original, copy)
    change(copy)
    with warnings.catch_warnings(), pytest.raises(ModelError) as caught:
        warnings.simplefilter("ignore")
        load_pretrained(str(copy))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message.replace(f"{copy}/", "")


def test_the_list_of_files_is_complete(folder: Path) -> None:
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(folder: Path, tmp_path: Path, file: str) -> None:
    message = refused(folder, tmp_path, lambda copy: (copy / file).unlink())
    assert message.startswith(f"{file}: missing")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("file", FILES)
def test_a_truncated_file_is_named(folder: Path, tmp_path: Path, file: str, share: float) -> None:
    def truncate(copy: Path) -> None:
        content = (copy / file).read_bytes()
        (copy / file).write_bytes(content[: int(share * len(content))])

    assert refused(folder, tmp_path, truncate).startswith(f"{file}: ")


@pytest.mark.parametrize("content", ['{"a": }', "[]", "{}", "\x00\x01", '"text"'])
@pytest.mark.parametrize("file", JSON)
def test_a_json_file_full_of_nonsense_is_named(
    folder: Path, tmp_path: Path, file: str, content: str
) -> None:
    if (file, content) == ("text_tokenizer/tokenizer_config.json", "{}"):
        pytest.skip("the words are all in tokenizer.json")
    message = refused(folder, tmp_path, lambda copy: (copy / file).write_text(content))
    assert message.startswith(f"{file}: ")


@pytest.mark.parametrize("file", TENSORS)
def test_a_missing_tensor_is_named_and_never_left_random(
    folder: Path, tmp_path: Path, file: str
) -> None:
    names = sorted(load_file(folder / file))

    def drop(copy: Path) -> None:
        tensors = load_file(copy / file)
        del tensors[names[-1]]
        save_file(tensors, copy / file, {"format": "pt"})

    assert refused(folder, tmp_path, drop) == f"{file}: the tensor {names[-1]} is missing"


@pytest.mark.parametrize("file", TENSORS)
def test_a_tensor_of_another_shape_is_named(folder: Path, tmp_path: Path, file: str) -> None:
    name = sorted(load_file(folder / file))[0]

    def reshape(copy: Path) -> None:
        tensors = {**load_file(copy / file), name: torch.zeros(3, 5)}
        save_file(tensors, copy / file, {"format": "pt"})

    message = refused(folder, tmp_path, reshape)
    assert message.startswith(f"{file}: {name} has shape (3, 5); the model needs (")


def edited(file: str, **values: Any) -> Callable[[Path], object]:
    def edit(copy: Path) -> None:
        content = json.loads((copy / file).read_text())
        (copy / file).write_text(json.dumps({**content, **values}))

    return edit


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", "large"),
        ("hidden_size", -4),
        ("hidden_size", 30),  # 15 per head: rotary positions need an even number
        ("heads", 0),
        ("layers", 1.5),
        ("vq_channels", []),
        ("vq_channels", 8),
        ("vq_channels", ["a"]),
        ("image_size", 18),  # not a multiple of the 8 pixels of a token
        ("patch", True),
        ("hidden", 32),  # misspelt
    ],
)
def test_a_size_that_makes_no_sense_is_named(
    folder: Path, tmp_path: Path, key: str, value: Any
) -> None:
    message = refused(folder, tmp_path, edited("config.json", **{key: value}))
    assert message.startswith("config.json: ") and key in message


@pytest.mark.parametrize(
    ("key", "value", "file"),
    [
        ("layers", 3, "transformer/config.json"),
        ("hidden_size", 64, "transformer/config.json"),
        ("codebook_size", 16, "vq/config.json"),
        ("vq_channels", [8, 16], "vq/config.json"),
        ("image_size", 24, "transformer/config.json"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(
    folder: Path, tmp_path: Path, key: str, value: Any, file: str
) -> None:
    message = refused(folder, tmp_path, edited("config.json", **{key: value}))
    assert message.startswith(f"{file}: ") and "does not fit" in message


def test_a_huge_size_in_a_part_is_refused_before_memory_is_taken(
    folder: Path, tmp_path: Path
) -> None:
    change = edited("transformer/config.json", hidden_size=2**20)
    assert "hidden_size: 1048576 does not fit" in refused(folder, tmp_path, change)


def test_an_architecture_that_is_not_supported_lists_those_that_are(
    folder: Path, tmp_path: Path
) -> None:
    message = refused(folder, tmp_path, edited("config.json", model_type="gpt9"))
    assert message == (
        f"config.json: model_type 'gpt9' is not supported; supported: {', '.join(MODELS)}"
    )


def test_a_folder_that_is_still_being_written_is_no_embedded_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("t2i_credit.models.EMBEDDED", tmp_path)
    for name in ("shapes", ".shapes.1.tmp"):
        shutil.copytree(folder, tmp_path / name)
    assert embedded_names() == ["shapes"]
    assert load_pretrained("shapes").grid == (2, 2)


def test_a_folder_that_does_not_exist_is_refused_with_the_embedded_names(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder; embedded models: ") as caught:
        load_pretrained(str(tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)
