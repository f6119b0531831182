"""What is handed out as a whole file: the maps of a step as one page, and all that a run recorded as one archive."""

from __future__ import annotations

import csv
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

from ..errors import RunError
from ..files import regular_file
from ..run_folder.atomic import cannot
from ..run_folder.layout import contained, step_name
from ..run_folder.reader import RunReader
from .credit_maps import nearest
from .downloads import cell
from .runs import RunShelf
from .single_file import groups, page

MOST_ARCHIVE = 2 << 30  # bytes of the files in it
MOST_FILES = 100_000
BESIDE = ("config.yaml", "environment.json", "metrics.jsonl")


class Export(NamedTuple):
    """A file for a visitor: its name, its MIME type, and where it is read from; whoever takes it closes it."""

    name: str
    mime: str
    file: IO[bytes]


def export(shelf: RunShelf, kind: str, asked: Mapping[str, str]) -> Export:
    """A file by its kind.

    Args:
        shelf: the runs.
        kind: "page" (of the step that is asked for, else of the newest) or "archive".
        asked: {"run": name, "step": digits}.

    Raises:
        RunError: no such run or kind, nothing recorded, or too much for one file.
        OSError: a file cannot be read.
    """
    reader = shelf.open(asked.get("run"))
    if kind == "page":
        return _page(shelf, reader, asked.get("step", ""))
    if kind == "archive":
        return _archive(reader)
    raise RunError(f"{kind!r} is not handed out; allowed: page, archive")


def _page(shelf: RunShelf, reader: RunReader, wanted: str) -> Export:
    known = wanted.isdecimal() and len(wanted) < 10
    step = nearest(reader.steps(), int(wanted) if known else None)
    text = page(reader, groups(shelf, reader, [step]))
    return Export(f"{reader.path.name}-step{step}.html", "text/html", io.BytesIO(text.encode()))


def _archive(reader: RunReader) -> Export:
    """Metrics as a table, and every file of the recorded steps as it is."""
    inside: list[Path] = []
    for step in reader.steps():
        folder = reader.path / "steps" / step_name(step)
        more = islice((path for path in folder.rglob("*") if path.is_file()), MOST_FILES)
        inside += sorted(more)
        if len(inside) >= MOST_FILES:
            problem = f"{MOST_FILES:,} files or more were recorded; copy the folder instead"
            raise RunError(f"{reader.path.name}: {problem}")
    inside += [path for name in BESIDE if (path := reader.path / name).is_file()]
    size = sum(contained(path, reader.within).stat().st_size for path in inside)
    if size > MOST_ARCHIVE:
        raise RunError(
            f"{reader.path.name}: {size:,} bytes were recorded, and at most {MOST_ARCHIVE:,} go into one archive; "
            "copy the folder instead"
        )
    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever takes it closes it
    try:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            name = reader.path.name
            archive.writestr(f"{name}/metrics.csv", metrics_csv(reader), zipfile.ZIP_DEFLATED)
            for path in inside:
                _add(archive, reader, path, f"{name}/{path.relative_to(reader.path).as_posix()}")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return Export(f"{name}.zip", "application/zip", file)


def _add(archive: zipfile.ZipFile, reader: RunReader, path: Path, name: str) -> None:
    """One file, as long as it is a file of the run; pictures and tensors are packed already."""
    packed = path.suffix in (".png", ".safetensors", ".npz")
    about = zipfile.ZipInfo(name)
    about.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
    try:
        with (
            regular_file(contained(path, reader.within), MOST_ARCHIVE) as source,
            archive.open(about, "w", force_zip64=True) as target,
        ):
            left = os.fstat(source.fileno()).st_size
            while left > 0 and (piece := source.read(min(left, 1 << 20))):
                target.write(piece)
                left -= len(piece)
    except OSError as error:
        raise cannot("read", path, error) from error


def metrics_csv(reader: RunReader) -> str:
    """One line per step; a column for each name that occurs, in the order in which they come."""
    metrics = reader.metrics(strict=False)
    names = list(dict.fromkeys(name for entry in metrics for name in entry))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([cell(name) for name in names])
    for entry in metrics:
        values = (entry.get(name) for name in names)
        table.writerow(
            [
                "" if value is None else cell(value) if isinstance(value, str) else value
                for value in values
            ]
        )
    return text.getvalue()
