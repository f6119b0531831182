"""Damage to files as hypothesis draws it: other bytes, JSON of another shape, headers that lie, no file at all. Holds no test."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

JUNK: list[Any] = [
    *(None, True, False, 0, -1, 3, 1e308, 10**400, "", "x", "a" * 1000, [], {}, [1], {"a": 1}),
    *("nan", -1.5, [[[]]], "\N{LINE SEPARATOR}", "<script>"),
]
WHOLE_FILES = [b"", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 100_000]
SPARSE = 1 << 40  # bytes of a file that takes no room on the disk


def mutated(draw: Any, value: Any) -> Any:
    """The value with one of its parts replaced, removed or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        found = dict(value)
        action = draw(st.sampled_from(["change", "change", "change", "remove", "add"]))
        if action == "remove":
            del found[key]
        elif action == "add":
            found[draw(st.sampled_from(["new", "samples", "step", "format"]))] = draw(
                st.sampled_from(JUNK)
            )
        else:
            found[key] = mutated(draw, value[key])
        return found
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], mutated(draw, value[place]), *value[place + 1 :]]
    return draw(st.sampled_from(JUNK))


def _other_value(draw: Any, content: bytes, suffix: str) -> bytes | None:
    """The file with another value in it; None where its format has none."""
    if suffix == ".safetensors":
        size = int.from_bytes(content[:8], "little")
        header = json.dumps(mutated(draw, json.loads(content[8 : 8 + size]))).encode()
        return len(header).to_bytes(8, "little") + header + content[8 + size :]
    if suffix == ".yaml":
        return json.dumps(mutated(draw, yaml.safe_load(content))).encode()  # which is YAML
    if suffix not in (".json", ".jsonl"):
        return None
    lines = content.decode().split("\n") if suffix == ".jsonl" else [content.decode()]
    place = draw(st.integers(0, max(0, sum(map(bool, lines)) - 1)))
    lines[place] = json.dumps(mutated(draw, json.loads(lines[place])))
    return "\n".join(lines).encode()


@st.composite
def damage(draw: Any, content: bytes, suffix: str) -> bytes:
    """Other content of a file: cut, overwritten, replaced, or values of another shape."""
    kind = draw(st.sampled_from(["value", "value", "value", "cut", "bytes", "junk"]))
    if kind == "value" and (other := _other_value(draw, content, suffix)) is not None:
        return other
    if kind == "bytes" and content:
        place = draw(st.integers(0, len(content) - 1))
        return content[:place] + draw(st.binary(max_size=16)) + content[place + 16 :]
    if kind == "junk":
        return draw(st.sampled_from(WHOLE_FILES))
    return content[: draw(st.integers(0, len(content)))]


def damage_file(draw: Any, file: Path) -> str:
    """Damages a file, or puts something else in its place; what was done."""
    kind = draw(st.sampled_from([*["content"] * 8, "nothing", "folder", "pipe", "endless", "link"]))
    if kind == "content":
        content = draw(damage(file.read_bytes(), file.suffix))
        file.write_bytes(content)
        return f"content {content[:200]!r}"
    if kind == "endless":
        os.truncate(file, SPARSE)
        return kind
    file.unlink()
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "link":
        file.symlink_to(file.name)  # to itself
    return kind


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Kind and size of everything in a folder, and the bytes of its files that are not endless."""
    found = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        read = path.is_file() and not path.is_symlink() and about.st_size < SPARSE
        size = 0 if path.is_dir() else about.st_size
        found[str(path)] = (about.st_mode, size.to_bytes(8) + (path.read_bytes() if read else b""))
    return found


def renewed(whole: Path, copy: Path) -> Path:
    """A fresh copy of a folder."""
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(whole, copy))
