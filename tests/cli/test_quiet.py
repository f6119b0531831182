"""A quiet console: what of libraries, of users' modules and of this project is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from t2i_credit.cli.quiet import broken_torch

SETUP = """
import logging, sys, warnings
from t2i_credit.cli.quiet import quiet_libraries
quiet_libraries()
import transformers
from t2i_credit.errors import T2ICreditWarning
"""
LIBRARY = """
from transformers.utils import logging as theirs
theirs.get_logger("transformers.x").warning("chatter of a library")
theirs.tqdm(range(3), desc="Loading weights").close()
logging.warning("chatter of a logger")
warnings.warn_explicit("`old` goes", FutureWarning, transformers.__file__, 1)
"""


def stderr_of(code: str, folder: Path, **variables: str) -> str:
    """What a script says on standard error, in which the console has been made quiet."""
    (folder / "script.py").write_text(SETUP + code)
    env = {k: v for k, v in os.environ.items() if "PROGRESS_BARS" not in k and "VERBOS" not in k}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=env | variables,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_what_libraries_say_is_left_out_and_said_when_asked_for(tmp_path: Path) -> None:
    assert stderr_of(LIBRARY, tmp_path) == ""
    loud = stderr_of(LIBRARY, tmp_path, T2I_CREDIT_VERBOSE="1")
    for said in ("chatter of a library", "Loading weights", "chatter of a logger", "`old` goes"):
        assert said in loud


def test_warnings_of_ours_and_of_a_users_module_stay(tmp_path: Path) -> None:
    code = """
warnings.warn("slow", T2ICreditWarning)
warnings.warn("of my reward")
logging.getLogger("any").error("an error")
"""
    said = stderr_of(code, tmp_path)
    assert "warning: slow\n" in said
    assert "UserWarning: of my reward" in said
    assert "an error" in said


def test_a_torch_and_a_torchvision_that_do_not_fit_are_one_line() -> None:
    try:
        try:
            raise RuntimeError("operator torchvision::nms does not exist")
        except RuntimeError as inner:
            raise ImportError("could not import the processor") from inner
    except ImportError as error:
        line = broken_torch(error)
    assert line is not None and "\n" not in line
    assert line.startswith("torch and torchvision do not fit each other")
    assert broken_torch(ImportError("no module named x")) is None


@pytest.mark.parametrize("place", ["before", "after"])
def test_verbose_is_understood_wherever_it_stands(tmp_path: Path, place: str) -> None:
    words = ["prompts", "--out", "made.jsonl", "--per-task", "1"]
    words = ["--verbose", *words] if place == "before" else [*words, "--verbose", "--verbose"]
    code = "import sys; from t2i_credit.cli import main; sys.argv[1:] = sys.argv[2:]; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "prompts: made.jsonl" in done.stdout
