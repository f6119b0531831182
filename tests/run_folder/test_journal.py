"""The journal of an unfinished evaluation: what it keeps, what it does not trust."""

from __future__ import annotations

from pathlib import Path

import pytest

from t2i_credit.errors import RunError
from t2i_credit.run_folder.journal import Found, Journal

HEADER = {"model": "shapes", "protocol": {"seed": 0}}
FOUND = [Found([{"correct": p == 1, "score": p / 3}], None if p else 0.25) for p in range(3)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The journal of a killed evaluation with two prompts done."""
    path = tmp_path / "deep" / "unfinished.jsonl"
    journal = Journal(path, HEADER)
    journal.add(FOUND[:1])
    journal.add(FOUND[1:2])
    return path


def refuse(line: str) -> None:
    raise AssertionError(line)


def test_a_killed_evaluation_goes_on_with_what_was_found(path: Path) -> None:
    journal = Journal(path, HEADER, refuse)
    assert journal.found == FOUND[:2]
    journal.add(FOUND[2:])
    assert Journal(path, HEADER, refuse).found == FOUND


@pytest.mark.parametrize(
    "left", [b'{"prompt": 2, "rec', b'{"prompt": 2, "rec\n', b'{"prompt": 5}\n', b"[]\n", b"\n"]
)
def test_a_line_that_is_not_whole_or_not_next_is_not_trusted(path: Path, left: bytes) -> None:
    path.write_bytes(path.read_bytes() + left)
    journal = Journal(path, HEADER, refuse)
    assert journal.found == FOUND[:2]
    journal.add(FOUND[2:])
    assert Journal(path, HEADER, refuse).found == FOUND


def test_another_evaluation_starts_over_and_says_why(path: Path) -> None:
    told: list[str] = []
    other = {**HEADER, "protocol": {"seed": 1}}
    journal = Journal(path, other, told.append)
    assert journal.found == []
    assert len(told) == 1
    assert "starts over, protocol has changed since the unfinished evaluation" in told[0]
    assert Journal(path, other, refuse).found == []


def test_a_damaged_journal_starts_over(path: Path) -> None:
    path.write_bytes(b"\xff\n" + path.read_bytes())
    told: list[str] = []
    assert Journal(path, HEADER, told.append).found == []
    assert len(told) == 1


def test_a_finished_evaluation_leaves_no_journal(path: Path) -> None:
    Journal(path, HEADER).finish()
    assert not path.exists()
    assert Journal(path, HEADER, refuse).found == []


def test_a_journal_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/unfinished\.jsonl: cannot be read"):
        Journal(tmp_path / "file" / "unfinished.jsonl", HEADER)
