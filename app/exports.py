"""What is handed out as a whole file: the maps of a step as one page, and all that a run recorded as one archive."""

from __future__ import annotations

import csv
import io
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple, TextIO

from ..errors import RunError
from ..files import regular_file
from ..heatmap.files import thinned
from ..run_folder.atomic import cannot
from ..run_folder.layout import contained, step_name
from ..run_folder.reader import RunReader
from .credit_maps import nearest
from .downloads import cell
from .runs import RunShelf
from .single_file import groups, page

MOST_ARCHIVE = 512 << 20  # bytes of the files in it
MOST_FILES = 20_000
MOST_DEFLATED = 32 << 20  # bytes that are packed; what comes after that is put in as it is
MOST_CELLS = 2_000_000  # of metrics as a table
PAGE_BYTES, PAGE_SECONDS = 16 << 20, 3.0  # of a step's maps
PACKED = (".png", ".safetensors", ".npz")  # already
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
        return _archive(shelf, reader)
    raise RunError(f"{kind!r} is not handed out; allowed: page, archive")


def _page(shelf: RunShelf, reader: RunReader, wanted: str) -> Export:
    known = wanted.isdecimal() and len(wanted) < 10
    step = nearest(reader.steps(), int(wanted) if known else None)
    found = groups(shelf, reader, [step], PAGE_BYTES, PAGE_SECONDS)
    text = page(reader, found, len(shelf.recorded(reader, step)))
    return Export(f"{reader.path.name}-step{step}.html", "text/html", io.BytesIO(text.encode()))


def _archive(shelf: RunShelf, reader: RunReader) -> Export:
    """Metrics as a table, and every file of the recorded steps as it is; no link, and no name that is not a plain text."""
    inside: list[Path] = []
    name = "".join(c if c.isprintable() and c not in "\\/:" else "_" for c in reader.path.name)
    folders = [reader.path / "steps" / step_name(step) for step in reader.steps()]
    for path in regular_files(folders):
        inside.append(path)
        if len(inside) >= MOST_FILES:
            problem = f"{MOST_FILES:,} files or more were recorded; copy the folder instead"
            raise RunError(f"{reader.path.name}: {problem}")
    inside.sort()
    inside += [path for one in BESIDE if is_plain(path := reader.path / one)]
    size = sum(path.lstat().st_size for path in inside)
    if size > MOST_ARCHIVE:
        raise RunError(
            f"{reader.path.name}: {size:,} bytes were recorded, and at most {MOST_ARCHIVE:,} go into one archive; "
            "copy the folder instead"
        )
    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever takes it closes it
    try:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            table = zipfile.ZipInfo(f"{name}/metrics.csv")
            table.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(table, "w", force_zip64=True) as target:
                text = io.TextIOWrapper(target, "utf-8", "backslashreplace", newline="")
                write_metrics(shelf.metrics(reader), text)
                text.flush()
            packed = 0
            for path in inside:
                within = path.relative_to(reader.path).as_posix()
                pack = path.suffix not in PACKED and packed < MOST_DEFLATED
                packed += _add(archive, reader, path, f"{name}/{within}", pack)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return Export(f"{reader.path.name}.zip", "application/zip", file)


def is_plain(path: Path) -> bool:
    """Whether it is a file, and no link to one."""
    return path.is_file() and not path.is_symlink()


def regular_files(folders: Sequence[Path]) -> Iterator[Path]:
    """The files in folders and theirs whose names any system takes; no links, and whatever cannot be opened is left out."""
    left, seen = list(folders[::-1]), 0
    while left:
        folder = left.pop()
        with suppress(OSError), os.scandir(folder) as entries:
            if folder.is_symlink():
                continue
            for entry in entries:
                seen += 1
                if seen > 2 * MOST_FILES:
                    raise RunError(f"{folder}: too many files and folders; copy the folder instead")
                if entry.is_symlink() or not entry.name.isprintable() or "\\" in entry.name:
                    continue
                if entry.is_dir():
                    left.append(Path(entry.path))
                elif entry.is_file():
                    yield Path(entry.path)


def _add(archive: zipfile.ZipFile, reader: RunReader, path: Path, name: str, pack: bool) -> int:
    """One file, as long as it is a file of the run; returns how many bytes were packed."""
    about = zipfile.ZipInfo(name)
    try:
        with regular_file(contained(path, reader.within), MOST_ARCHIVE) as source:
            left = size = os.fstat(source.fileno()).st_size
            pack &= size <= MOST_DEFLATED // 4
            about.compress_type = zipfile.ZIP_DEFLATED if pack else zipfile.ZIP_STORED
            with archive.open(about, "w", force_zip64=True) as target:
                while left > 0 and (piece := source.read(min(left, 1 << 20))):
                    target.write(piece)
                    left -= len(piece)
    except OSError as error:
        raise cannot("read", path, error) from error
    return size if pack else 0


def write_metrics(metrics: list[dict[str, Any]], file: TextIO) -> None:
    """One line per step, thinned where there are very many; a column for each name that occurs, in the order in which they come."""
    names = list(dict.fromkeys(name for entry in metrics for name in entry))
    table = csv.writer(file, lineterminator="\n")
    table.writerow([cell(name) for name in names])
    for entry in thinned(metrics, max(2, MOST_CELLS // max(1, len(names)))):
        values = (entry.get(name) for name in names)
        table.writerow(
            [
                "" if value is None else cell(value) if isinstance(value, str) else value
                for value in values
            ]
        )
