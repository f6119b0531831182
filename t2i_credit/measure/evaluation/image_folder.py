"""Images in GenEval's folder layout, ours for the official scripts and anybody's for us. Judges nothing.

    00000/metadata.jsonl        the record of prompt 0, one JSON object
    00000/samples/0000.png      its images
    00000/samples/0001.png
    00001/...
    protocol.json               how they were sampled; only in folders that were written here

Shapes: P prompts, G images of each.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ...errors import PromptError, RunError, UserError
from ...interfaces import Prompt
from ...prompts.files import load_prompts
from ...run_folder.atomic import cannot, json_bytes, write_atomic

Pixels = NDArray[np.uint8]  # (h, w, 3)
_NUMBERED = re.compile(r"\d+")
_IMAGE = re.compile(r"(\d+)\.png")


@dataclass(frozen=True)
class ImageFolder:
    """A folder of images and what it was expected to hold.

    Attributes:
        path: where it lies.
        prompts: (P) with their records.
        numbers: (G) the numbers in the names of each prompt's images.
        folders: (P) names of the prompts' folders.
        ignored: files among the images that are none of these, and are not judged.
    """

    path: Path
    prompts: list[Prompt]
    numbers: list[int]
    folders: list[str]
    ignored: list[str]

    def load(self, prompt_index: int) -> list[Pixels | str]:
        """The G images of a prompt; for one that is missing or unreadable, why, in its place."""
        return [load_image(self.path / name) for name in self.names(prompt_index)]

    def newest(self) -> int:
        """When an image was last written, in nanoseconds: other images at the same place are another evaluation."""
        files = (self.path / n for p in range(len(self.prompts)) for n in self.names(p))
        return max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)

    def names(self, prompt_index: int) -> list[str]:
        """Where the G images of a prompt lie, or should."""
        samples = f"{self.folders[prompt_index]}/samples"
        return [f"{samples}/{_file_name(self.path / samples, n)}" for n in self.numbers]


def is_image_folder(path: Path) -> bool:
    """Whether there are prompts' folders in it."""
    return path.is_dir() and bool(_numbered(path))


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
        value = json.loads(path.read_bytes())
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
    if not folder.is_dir() or not (found := _numbered(folder)):
        return
    if not (folder / "protocol.json").exists():
        raise UserError(f"{folder}: holds images from elsewhere; write to another --out")
    try:
        for name in found.values():
            shutil.rmtree(folder / name)
    except OSError as error:
        raise cannot("cleared", folder, error) from error


def read_folder(
    path: Path, *, prompts: Sequence[Prompt] | None = None, images_per_prompt: int | None = None
) -> ImageFolder:
    """Looks at a folder and says what it should hold: the images themselves are read later, by `load`.

    Args:
        path: the folder.
        prompts: the prompt set, in the order of the folder's numbers; None = what the folder itself says, which must
            then have no gap.
        images_per_prompt: G; None = as many as there are different image names.

    Raises:
        UserError: no such folder, or no image in it, a gap that only a prompt set can fill, a record that is
            missing, wrong or another than the prompt set's, or more images than asked for.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder of images")
    found = _numbered(path)
    count = len(prompts) if prompts is not None else max(found, default=-1) + 1
    if not found:
        raise UserError(f"{path}: holds no folder 00000, 00001, ... with samples/0000.png in it")
    if beyond := [found[p] for p in found if p >= count]:
        raise UserError(f"{path}: {beyond[0]} lies beyond the {count} prompts of the set")
    if prompts is None and (gaps := [p for p in range(count) if p not in found]):
        raise UserError(
            f"{path}: {len(gaps)} of {count} prompts have no folder, such as {gaps[0]:05d}, and only a prompt file"
            " says what they asked for; give it with --prompts"
        )
    folders = [found.get(p, f"{p:05d}") for p in range(count)]
    asked = [
        _prompt_of(path / name, prompts[p] if prompts is not None else None)
        for p, name in enumerate(folders)
    ]
    numbers, ignored = _numbers(path, folders)
    wanted = images_per_prompt or len(numbers)
    if not numbers or len(numbers) > wanted:
        held = f"{len(numbers)} different image names (samples/0000.png, ...)"
        hint = "" if not numbers else f", {wanted} were asked for; give --per-prompt {len(numbers)}"
        raise UserError(f"{path}: its prompts have {held}{hint}")
    spare = (n for n in range(wanted) if n not in numbers)
    numbers = sorted([*numbers, *(next(spare) for _ in range(wanted - len(numbers)))])
    return ImageFolder(path, asked, numbers, folders, ignored)


def _numbered(path: Path) -> dict[int, str]:
    """{number: name} of the prompts' folders."""
    found: dict[int, str] = {}
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and _NUMBERED.fullmatch(entry.name):
            number = int(entry.name)
            if number in found:
                raise UserError(f"{path}: {found[number]} and {entry.name} are one number")
            found[number] = entry.name
    return found


def _prompt_of(folder: Path, expected: Prompt | None) -> Prompt:
    """The prompt of a folder, by its record; the expected one where the folder or its record is missing."""
    path = folder / "metadata.jsonl"
    if expected is not None and not path.exists():
        return expected
    found = load_prompts(path)
    if len(found) != 1 or found[0].spec is None:
        raise PromptError(f"{path}: must hold one GenEval record with tag and include")
    if expected is None:
        return replace(found[0], negative=None)
    theirs = {**found[0].spec, "prompt": found[0].text}
    if theirs != {**(expected.spec or {}), "prompt": expected.text}:
        raise PromptError(
            f"{path}: asks for {found[0].text!r}, the prompt set for {expected.text!r} or by another record"
        )
    return expected


def _numbers(path: Path, folders: Sequence[str]) -> tuple[list[int], list[str]]:
    """The numbers that images have anywhere, ascending, and the files that are no images of this layout."""
    numbers: set[int] = set()
    ignored = []
    for name in folders:
        samples = path / name / "samples"
        for entry in sorted(samples.iterdir()) if samples.is_dir() else ():
            if match := _IMAGE.fullmatch(entry.name):
                numbers.add(int(match[1]))
            else:
                ignored.append(f"{name}/samples/{entry.name}")
    return sorted(numbers), ignored


def _file_name(samples: Path, number: int) -> str:
    """The name of the image of that number, however many zeros it has."""
    names = [f"{number:0{width}d}.png" for width in (4, 5, 1, 2, 3, 6)]
    return next((name for name in names if (samples / name).exists()), names[0])


def load_image(path: Path) -> Pixels | str:
    """An image, turned as it was taken; why there is none, where it is missing or unreadable."""
    try:
        with Image.open(path) as file:
            pixels: Pixels = np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
            return pixels
    except FileNotFoundError:
        return "missing"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"unreadable ({' '.join(str(error).split()) or type(error).__name__})"


def _replace(path: Path, content: bytes) -> None:
    """A small file, whole or not at all; not synced, for it can be made again."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
