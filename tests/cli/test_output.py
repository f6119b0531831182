"""Where the output goes ends no command: a reader that leaves, a full disk, a closed stream, letters that an encoding lacks."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from repository import SUPPORT
from toys import recipe

from t2i_credit.run_folder.reader import RunReader
from t2i_credit.yaml_text import write_yaml

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"}
FULL = Path("/dev/full")
full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full, a disk that is full")


def command(*words: str, where: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A command in a shell, with its output as `where` says."""
    line = " ".join([shlex.quote(sys.executable), "-m", "t2i_credit.cli", *words, where])
    shell = ["bash", "-o", "pipefail", "-c", line]
    return subprocess.run(
        shell, env=ENVIRONMENT | more, capture_output=True, text=True, check=False
    )


@full
def test_a_full_disk_is_one_line_and_exit_code_1() -> None:
    done = command("config", "shapes/grpo", where="> /dev/full")
    assert done.returncode == 1
    assert done.stderr == "output: cannot be written: No space left on device; going on without\n"


def test_a_reader_that_leaves_and_a_closed_stream_are_no_errors() -> None:
    for where in ("| head -n 1", ">&-", ">&- 2>&-"):
        done = command("config", "shapes/grpo", where=where)
        assert (done.returncode, done.stderr) == (0, "")
    assert command("config", "nothing", where=">&- 2>&-").returncode == 2


def test_a_letter_that_the_encoding_lacks_is_a_question_mark() -> None:
    words = ("config", "shapes/grpo", "'prompts.negative=ein Kreis – ö'")
    done = command(*words, where="", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "negative: ein Kreis ? ?\n" in done.stdout


@full
@pytest.mark.parametrize("where", ["> /dev/full", "| head -n 0"])
def test_a_training_goes_on_without_its_output(tmp_path: Path, where: str) -> None:
    config = recipe(tmp_path, train={"steps": 3, "name": "run"})
    (tmp_path / "mine.yaml").write_text(write_yaml(config))
    done = command("train", str(tmp_path / "mine.yaml"), where=where)
    assert "Traceback" not in done.stderr
    reader = RunReader(tmp_path / "runs" / "run")
    assert reader.status().state == "finished" and len(reader.metrics()) == 3
