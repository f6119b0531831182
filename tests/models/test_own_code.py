"""Python code that lies in a model folder is never run, nobody is asked about it, and no advice is given to run it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from repository import ROOT
from tiny_checkpoints import write_tiny_emu3, write_tiny_janus, write_tiny_llamagen
from tiny_detectors import write_clip, write_grounding_dino, write_mask2former, write_owlv2
from tiny_texts import write_checkpoint

CODE = """
from pathlib import Path

Path("{mark}").write_text("it ran")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


class Own(PreTrainedTokenizerFast): ...
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM): ...
"""
AUTO = {
    "AutoConfig": "own.OwnConfig",
    "AutoModel": "own.OwnModel",
    "AutoModelForCausalLM": "own.OwnModel",
    "AutoTokenizer": ["own.Own", "own.Own"],
    "AutoProcessor": "own.Own",
    "AutoImageProcessor": "own.Own",
}
LOADS = {
    "janus": (write_tiny_janus, "from t2i_credit.models import load_pretrained as load"),
    "emu3": (write_tiny_emu3, "from t2i_credit.models import load_pretrained as load"),
    "llamagen": (write_tiny_llamagen, "from t2i_credit.models import load_pretrained as load"),
    "text": (write_checkpoint, "from t2i_credit.models.text_model import load_text_model as load"),
    "mask2former": (write_mask2former, "DETECTOR"),
    "owlv2": (write_owlv2, "DETECTOR"),
    "grounding_dino": (write_grounding_dino, "DETECTOR"),
    "clip": (write_clip, "CLIP"),
}


def script(kind: str, load: str, folder: Path) -> str:
    """Lines of a program that load the folder and say in one line how that ended."""
    call = f"load({str(folder)!r})"
    if load == "DETECTOR":
        load = "from t2i_credit.api.objects import load_detector"
        call = f"load_detector({kind + '@' + str(folder)!r})"
    if load == "CLIP":
        load = "from t2i_credit.rewards.clip_tower import transformers_tower"
        call = f"transformers_tower({str(folder)!r}, {str(folder)!r}, device='cpu', dtype='float32', reward='clip')"
    return f"""
{load}
from t2i_credit.errors import UserError
try:
    {call}
    print("{kind}: loaded")
except UserError as error:
    print("{kind}: refused:", error)
"""


def with_code(write: Callable[[Path], object], folder: Path, *, foreign: bool) -> Path:
    """A model folder all of whose configurations ask for own.py; `foreign`: transformers knows none of its kinds itself."""
    write(folder)
    for path in folder.rglob("*.json"):
        if path.name.endswith(("config.json", "preprocessor_config.json")):
            value = json.loads(path.read_text())
            value["auto_map"] = AUTO
            if foreign:
                value |= {k: "Own" for k in value if k in ("tokenizer_class", "processor_class")}
                value |= {"model_type": "own"} if "model_type" in value else {}
            path.write_text(json.dumps(value))
    for place in {path.parent for path in folder.rglob("*.json")}:
        (place / "own.py").write_text(CODE.format(mark=folder.parent / "ran"))
    return folder


@pytest.mark.parametrize("foreign", [False, True], ids=["known", "foreign"])
def test_code_in_a_model_folder_is_not_run_whatever_is_answered(
    tmp_path: Path, foreign: bool
) -> None:
    parts = []
    for kind, (write, load) in LOADS.items():
        folder = with_code(write, tmp_path / kind, foreign=foreign)
        parts.append(script(kind, load, folder))
    done = subprocess.run(
        [sys.executable, "-c", "".join(parts)],
        input="y\n" * 200,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not (tmp_path / "ran").exists()
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "[y/N]" not in said and "trust_remote_code" not in said
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == list(LOADS), said
    refused = [line for line in lines if ": refused:" in line]
    assert len(refused) >= (6 if foreign else 0), said


OWN = (
    "EmbeddedModel",
    "JanusImageModel",
    "Emu3ImageModel",
    "LlamaGenModel",
    "LlamaGenClassModel",
    "CausalImageModel",
)  # read by our own code


def test_every_call_that_loads_says_that_no_code_is_run() -> None:
    calls = []
    for path in (
        p for top in ("models", "rewards", "t2i_credit", "app") for p in (ROOT / top).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            name = ast.unparse(node.func)
            if node.func.attr == "from_pretrained" and not name.startswith(OWN):
                calls.append((path.name, name))
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert given.get("trust_remote_code") == "False", f"{path}:{node.lineno}: {name}"
    assert len(calls) >= 8
