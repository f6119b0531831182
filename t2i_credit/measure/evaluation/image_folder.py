"""Images in GenEval's folder layout, ours for the official scripts and anybody's for us. Judges nothing.

    00000/metadata.jsonl        the record of what was asked for, one JSON object
    00000/samples/0000.png      its images, of any name and in any number
    00000/samples/0001.png
    00001/...
    protocol.json               how they were sampled; only in folders that were written here

Or images beside each other, in the order of a prompt set. Records say which prompt a folder belongs to, so several folders
may be of one. Shapes: P folders, or lines of the set.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import RunError, UserError, one_line
from ...files import read_json
from ...interfaces import Prompt
from ...rollout.images import UNREADABLE, read_image, too_narrow
from ...run_folder.atomic import cannot, json_bytes, write_atomic

Pixels = NDArray[np.uint8]  # (h, w, 3)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")  # in any letter case
NUMBERED = re.compile(r"\d+")


@dataclass(frozen=True)
class ImageFolder:
    """A folder of images and what it was expected to hold.

    Attributes:
        path: where it lies.
        prompts: (P) what each folder in it, or line of the prompt set, asked for.
        numbers: (P) that of the folder or line.
        names: (P) where the images of each lie, or should.
        ignored: files among the images that are none of these, and are not judged.
    """

    path: Path
    prompts: list[Prompt]
    numbers: list[int]
    names: list[list[str]]
    ignored: list[str]

    def load(self, place: int) -> list[Pixels | str]:
        """The images of a folder or line; for one that is missing or unreadable, why, in its place."""
        return [load_image(self.path / name) for name in self.names[place]]

    def newest(self) -> int:
        """When an image was last written, in nanoseconds: other images at the same place are another evaluation."""
        files = (self.path / name for names in self.names for name in names)
        return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)


def is_image_folder(path: Path) -> bool:
    """Whether there are prompts' folders in it, or images alone: a model's folder may hold a picture, too."""
    if not path.is_dir():
        return False
    model = any((path / name).exists() for name in ("config.json", "config.yaml"))
    return bool(numbered_folders(path)) or (not model and bool(images_of(file_names(path))))


def image_name(prompt_index: int, number: int) -> str:
    """Where an image lies in a folder."""
    return f"{prompt_index:05d}/samples/{number:04d}.png"


def write_images(folder: Path, first: int, prompts: Sequence[Prompt], images: Pixels) -> None:
    """Writes the images (n*G, h, w, 3) of n prompts, the first of which is number `first`, and their records.

    Raises:
        RunError: the disk refuses.
    """
    group = len(images) // len(prompts)
    for p, prompt in enumerate(prompts):
        place = folder / f"{first + p:05d}"
        record = {**(prompt.spec or {}), "prompt": prompt.text}
        try:
            (place / "samples").mkdir(parents=True, exist_ok=True)
            _replace(place / "metadata.jsonl", json.dumps(record).encode() + b"\n")
            for g in range(group):
                path = folder / image_name(first + p, g)
                temporary = path.with_suffix(".tmp")
                Image.fromarray(images[p * group + g]).save(temporary, "PNG")
                os.replace(temporary, path)
        except OSError as error:
            raise cannot("written", place, error) from error


def write_protocol(folder: Path, value: dict[str, Any]) -> None:
    """Says beside the images how they were made."""
    write_atomic(folder / "protocol.json", json_bytes(value, indent=1) + b"\n")


def read_protocol(folder: Path) -> dict[str, Any] | None:
    """What `write_protocol` wrote; None if the images come from elsewhere.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / "protocol.json"
    try:
        value = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise cannot("read", path, error) from error
    if not isinstance(value, dict) or not isinstance(value.get("sampling"), dict):
        raise RunError(f"{path}: not the protocol of an image folder; delete it to do without")
    return value


def clear_images(folder: Path) -> None:
    """Deletes the images of an earlier evaluation, so that none of them passes for one of the next.

    Raises:
        UserError: the folder holds images that were not written here.
        RunError: the disk refuses.
    """
    if not folder.is_dir() or not (found := numbered_folders(folder)):
        return
    if not (folder / "protocol.json").exists():
        raise UserError(f"{folder}: holds images from elsewhere; write to another --out")
    try:
        for name in found.values():
            shutil.rmtree(folder / name)
    except OSError as error:
        raise cannot("cleared", folder, error) from error


def numbered_folders(path: Path) -> dict[int, str]:
    """{number: name} of the prompts' folders."""
    found: dict[int, str] = {}
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and NUMBERED.fullmatch(entry.name):
            number = int(entry.name)
            if number in found:
                raise UserError(f"{path}: {found[number]} and {entry.name} are one number")
            found[number] = entry.name
    return found


def file_names(folder: Path) -> list[str]:
    """The names of the files in a folder; none if there is no folder."""
    return sorted(f.name for f in folder.iterdir() if f.is_file()) if folder.is_dir() else []


def images_of(files: Iterable[str], numbered: bool = False) -> list[str]:
    """The images among these files, in natural order; one of each name, PNG before the others.

    Args:
        numbered: those alone whose name is a number.
    """
    found: dict[str, str] = {}
    for name in sorted(files, key=lambda name: not name.lower().endswith(".png")):
        stem, suffix = os.path.splitext(name)
        fits = suffix.lower() in SUFFIXES and not name.startswith(".")
        if fits and (not numbered or NUMBERED.fullmatch(stem)):
            found.setdefault(stem, name)
    return sorted(found.values(), key=natural)


def natural(name: str) -> tuple[list[str | int], str]:
    """Sorts numbers in names by their size: image2 before image10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def load_image(path: Path) -> Pixels | str:
    """An image, see `read_image`; why there is none, where it is missing, unreadable or far too narrow."""
    try:
        pixels = read_image(path)
        why = too_narrow(*pixels.shape[:2])
        return f"unreadable ({why})" if why else pixels
    except FileNotFoundError:
        return "missing"
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or one_line(error) or type(error).__name__
        return f"unreadable ({reason})"


def _replace(path: Path, content: bytes) -> None:
    """A small file, whole or not at all; not synced, for it can be made again."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
