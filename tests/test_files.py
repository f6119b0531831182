"""What is read of elsewhere: whatever lies in its place is one line, at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from t2i_credit.config.schema import load_config
from t2i_credit.errors import UserError
from t2i_credit.measure.evaluation.image_folder import read_protocol
from t2i_credit.measure.evaluation.results import load_results
from t2i_credit.measure.evaluation.scores import load_evaluation
from t2i_credit.models import check_pretrained
from t2i_credit.models.bounds import read_object
from t2i_credit.prompts.files import load_prompts
from t2i_credit.prompts.generate import write_prompt_file
from t2i_credit.text.models import is_text_model

READERS: dict[str, Callable[[Path], Any]] = {
    "recipe.yaml": lambda file: load_config(str(file)),
    "prompts.jsonl": load_prompts,
    "names.txt": lambda file: write_prompt_file(file.with_name("made"), per_task=1, names=file),
    "config.json": lambda file: check_pretrained(str(file.parent)),
    "settings.json": read_object,
    "scores.json": load_evaluation,
    "results.jsonl": load_results,
    "protocol.json": lambda file: read_protocol(file.parent),
}


def pipe(file: Path) -> None:
    os.mkfifo(file)


def endless(file: Path) -> None:
    file.touch()
    os.truncate(file, 1 << 40)


def nested(file: Path) -> None:
    file.write_text("[" * 100_000)


@pytest.mark.skipif(os.name != "posix", reason="makes a pipe")
@pytest.mark.parametrize(
    ("name", "made"),
    [(n, m) for n in READERS for m in (pipe, endless, nested) if (n, m) != ("names.txt", nested)],
)
def test_what_is_no_file_of_its_kind_is_one_line(
    tmp_path: Path, name: str, made: Callable[[Path], None]
) -> None:
    made(tmp_path / name)
    with pytest.raises(UserError) as caught:
        READERS[name](tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("architectures", ["3", "[1]", '{"a": 1}', "null"])
def test_a_list_of_architectures_that_is_none_names_no_text_model(
    tmp_path: Path, architectures: str
) -> None:
    (tmp_path / "config.json").write_text(f'{{"architectures": {architectures}}}')
    assert not is_text_model(str(tmp_path))
