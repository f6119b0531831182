"""What lies beside an evaluation's scores: its page, and the records of the evaluation before it. By names alone, inside the
run's folder, up to a size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..files import parse_json, regular_file, require_small
from ..run_folder.atomic import cannot
from ..run_folder.layout import contained, evaluation_path
from ..run_folder.reader import MOST_RECORDS, RunReader

MOST_REPORT = 128 << 20  # bytes


def report_path(reader: RunReader, name: str) -> Path:
    """Where the page of an evaluation lies; it need not be there.

    Raises:
        RunError: this is no name of an evaluation.
    """
    return evaluation_path(reader.path / "evaluations", name).with_suffix(".html")


def read_report(reader: RunReader, name: str) -> bytes:
    """The page of an evaluation.

    Raises:
        RunError: it is missing, too large, or leads out of the folder.
    """
    return _content(reader, report_path(reader, name), MOST_REPORT)


def records_before(reader: RunReader, name: str) -> list[dict[str, Any]]:
    """One dict per image of the evaluation that was made before this one, with it; [] where there is none.

    Raises:
        RunError: they cannot be read.
    """
    folder = evaluation_path(reader.path / "evaluations", name).with_suffix("") / "before"
    path = folder / "evaluation.jsonl"
    if not path.is_file():
        return []
    try:
        content = _content(reader, path, MOST_RECORDS)
        require_small(content)
        return [parse_json(line) for line in content.splitlines()]
    except ValueError as error:
        raise cannot("read", path, error) from error


def _content(reader: RunReader, path: Path, most: int) -> bytes:
    try:
        with regular_file(contained(path, reader.within), most) as file:
            return file.read(most)
    except OSError as error:
        raise cannot("read", path, error) from error
