"""Model folders made to do harm: paths that climb, archives that swell, sizes and numbers of no model. One line each, at once."""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_checkpoints import write_tiny_janus, write_tiny_llamagen

from t2i_credit.errors import ModelError
from t2i_credit.models import load_pretrained


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("made")
    return {
        "llamagen": write_tiny_llamagen(root / "llamagen"),
        "janus": write_tiny_janus(root / "janus"),
    }


@pytest.fixture
def folders(made: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    return {n: Path(shutil.copytree(folder, tmp_path / n)) for n, folder in made.items()}


def edited(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_pretrained(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("key", ["gpt", "vq", "t5"])
@pytest.mark.parametrize("name", ["../..", "../other/gpt.safetensors", "a/../../b", "/etc/passwd"])
def test_a_path_that_climbs_out_is_not_followed(
    folders: dict[str, Path], key: str, name: str
) -> None:
    edited(folders["llamagen"], **{key: name})
    assert f"config.json: {key}: {name!r} leads out of the folder" in refused(folders["llamagen"])


def test_a_shard_that_climbs_out_is_not_followed(folders: dict[str, Path]) -> None:
    folder = folders["janus"]
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    shard = next(iter(index["weight_map"].values()))
    (folder / shard).rename(folder.parent / shard)
    index["weight_map"] = dict.fromkeys(index["weight_map"], f"../{shard}")
    path.write_text(json.dumps(index))
    assert f"weight_map: '../{shard}' leads out of the folder" in refused(folder)


def published(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file of the transformer, and what it holds."""
    file = folder / json.loads((folder / "config.json").read_text())["gpt"]
    return file, torch.load(file, weights_only=True)


def test_a_compressed_archive_is_not_unpacked(folders: dict[str, Path]) -> None:
    folder = folders["llamagen"]
    file, _ = published(folder)
    load_pretrained(str(folder))
    with (
        zipfile.ZipFile(file) as plain,
        zipfile.ZipFile(folder / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.namelist():
            packed.writestr(entry, plain.read(entry))
    edited(folder, gpt="packed.pt")
    assert "packed.pt: is a compressed archive" in refused(folder)


@pytest.mark.parametrize("kind", [torch.int64, torch.float8_e4m3fn])
def test_numbers_of_no_weights_are_named(folders: dict[str, Path], kind: torch.dtype) -> None:
    folder = folders["llamagen"]
    file, held = published(folder)
    (weights,) = (value for value in held.values() if "norm.weight" in value)
    weights["norm.weight"] = weights["norm.weight"].to(kind)
    torch.save(held, file)
    said = refused(folder)
    assert "norm.weight has numbers of type" in said and str(kind) in said


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("text_config", "num_hidden_layers", 10**9),
        ("text_config", "hidden_size", 2**40),
        ("text_config", "vocab_size", -(2**62)),
        ("vq_config", "num_embeddings", 10**12),
        ("text_config", "vocab_size", 16_777_216),
        ("vision_config", "num_hidden_layers", 100_000),
    ],
)
def test_sizes_of_no_model_are_refused_before_it_is_built(
    folders: dict[str, Path], section: str, key: str, value: int
) -> None:
    folder = folders["janus"]
    config = json.loads((folder / "config.json").read_text())
    config[section][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    said = refused(folder)
    assert f"config.json: {section}.{key}: " in said and "is not allowed; at most" in said


def test_lists_of_no_model_are_refused(folders: dict[str, Path]) -> None:
    folder = folders["janus"]
    config = json.loads((folder / "config.json").read_text())
    config["vq_config"]["channel_multiplier"] = [1] * 3000
    (folder / "config.json").write_text(json.dumps(config))
    assert "vq_config.channel_multiplier: 3000 entries; at most 16" in refused(folder)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_attention_that_is_code_from_the_hub_is_refused(
    folders: dict[str, Path], tmp_path: Path, key: str
) -> None:
    from tiny_texts import write_checkpoint

    from t2i_credit.models.text_model import load_text_model

    edited(folders["janus"], **{key: "kernels-community/anything"})
    assert "is code from the hub, which is not run" in refused(folders["janus"])
    edited(write_checkpoint(tmp_path / "text"), **{key: "kernels-community/anything"})
    with pytest.raises(ModelError, match="is code from the hub, which is not run"):
        load_text_model(tmp_path / "text")


TEMPLATES = {
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}": "takes too long",
    "{{ 'x' * 9999999999 }}": "memory",
    "{% set ns = namespace(t='xxxxxxxx') %}{% for a in range(99999) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}": "memory",
    "{{ messages[0].content[0].text * 90000 }}": "writes more than 65,536 letters around a prompt",
    "{{ messages }} {{ messages }}": "writes a prompt 2 times; once is right",
    "hello": "writes a prompt 0 times; once is right",
    "{{ ''.__class__.__mro__ }}": "__class__",
    "{{ '\\ud800' }}{{ messages[0].content[0].text }}": "writes half a letter",
    "{% for": "unexpected 'end of template'",
    "{{ raise_exception('no\nway') }}": "no way",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_chat_template_is_tried_with_little_time_and_memory(
    folders: dict[str, Path], template: str
) -> None:
    (folders["janus"] / "chat_template.jinja").write_text(template)
    began = time.monotonic()
    found = refused(folders["janus"])
    assert "chat_template.jinja: " in found and TEMPLATES[template].lower() in found.lower()
    assert time.monotonic() - began < 60
