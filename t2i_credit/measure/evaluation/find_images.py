"""Which images in a folder belong to which prompt, and which are missing. Opens none of them.

Records say it: several folders may be of one prompt. Images beside each other belong to the lines of a prompt set.
Shapes: P folders, or lines of the set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path

from ...errors import PromptError, UserError
from ...interfaces import Prompt
from ...prompts.files import parse_prompt
from ...prompts.records import record_key
from .image_folder import NUMBERED, ImageFolder, file_names, images_of, natural, numbered_folders
from .scores import read_text


def read_folder(
    path: Path,
    *,
    prompts: Sequence[Prompt] | None = None,
    images_per_prompt: int | None = None,
    records: bool = True,
) -> ImageFolder:
    """Looks at a folder and says what it should hold: the images themselves are read later, by `load`.

    Args:
        path: the folder.
        prompts: the prompt set; None = what the folder itself says, whose numbers must then have no gap. A folder
            without a record belongs to the line of its number, images beside each other to the lines in their order.
        images_per_prompt: how many there should be of each line, without a set of each record; None = as many as there
            are of the others.
        records: whether what a folder asks for must be a GenEval record; else a text is enough.

    Raises:
        UserError: no such folder, or no image in it, a gap that only a prompt set can fill, a record that is
            missing, wrong or not in the prompt set, or more images than asked for.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder of images")
    if not (found := numbered_folders(path)):
        return _flat(path, prompts, images_per_prompt)
    found = dict(sorted(found.items()))
    files = {n: file_names(path / name / "samples") for n, name in found.items()}
    images = dict(zip(files, _images(list(files.values())), strict=True))
    fullest = max(images.values(), key=len)
    if not fullest:
        first = path / next(iter(found.values()))
        held = _listed(first / "samples" if (first / "samples").is_dir() else first)
        raise UserError(
            f"{path}: no image in samples/ of its {len(found)} folders: {held}; allowed are PNG, JPEG and WebP"
        )
    asked = _asked(path, found, prompts, records=records)
    keys = {n: _key(prompt) for n, prompt in asked.items()}
    lines = list(prompts or asked.values())
    of_key = _first_lines(lines)
    has = Counter(dict.fromkeys(of_key, 0))
    for n, key in keys.items():
        has[key] += len(images[n])
    names: dict[int, list[str]] = {}
    wanted = _wanted(path, has, Counter(map(_key, lines)), images_per_prompt, prompts is None)
    for key in dict.fromkeys(map(_key, lines)):
        there = {n: images[n] for n in keys if keys[n] == key}
        if not there:
            line = of_key[key]
            n = line if line not in found else -1 - line
            found[n] = f"{line:05d}" if n == line else f"missing-{line:05d}"
            asked[n], there = lines[line], {n: []}
        present = [(n, file) for n, inside in there.items() for file in inside]
        gone = islice(_absent(there, fullest), wanted[key] - has[key])
        for number, file in (*present, *gone):
            names.setdefault(number, []).append(f"{found[number]}/samples/{file}")
    return ImageFolder(
        path,
        [asked[n] for n in names],
        list(names),
        [sorted(each, key=natural) for each in names.values()],
        [f"{found[n]}/samples/{name}" for n in files for name in files[n] if name not in images[n]],
    )


def _flat(
    path: Path, prompts: Sequence[Prompt] | None, images_per_prompt: int | None
) -> ImageFolder:
    """Images beside each other: those of a line follow each other in natural order."""
    every = file_names(path)
    (files,) = _images([every])
    if not files:
        raise UserError(
            f"{path}: holds no folder 00000, 00001, ... with samples/0000.png in it and no PNG, JPEG or WebP:"
            f" {_listed(path)}"
        )
    if prompts is None:
        raise UserError(
            f"{path}: {len(files)} images, such as {files[0]}, and no folder 00000 with metadata.jsonl; give with"
            " --prompts the file whose lines they belong to, in the order of their names"
        )
    ignored = [name for name in images_of(every) if name not in files]
    each, rest = divmod(len(files), len(prompts))
    wanted = images_per_prompt or 1
    if rest or each != wanted:
        hint = f"allowed are {len(prompts)}, or G times as many with --per-prompt G"
        if each and not rest:
            hint = f"give --per-prompt {each} if those of a prompt follow each other"
        apart = f" (not counted: {', '.join(ignored[:3])})" if ignored else ""
        raise UserError(
            f"{path}: {len(files)} images, {files[0]} to {files[-1]}{apart}, for {len(prompts)} prompts x {wanted}; {hint}"
        )
    places = range(len(prompts))
    names = [files[p * each : (p + 1) * each] for p in places]
    return ImageFolder(path, list(prompts), list(places), names, ignored)


def _images(folders: Sequence[Sequence[str]]) -> list[list[str]]:
    """The images among the files of folders. Where any is named by a number, as in the official layout, the others are none:
    a grid, say."""
    every = [images_of(files) for files in folders]
    numbered = any(NUMBERED.fullmatch(Path(name).stem) for names in every for name in names)
    return [images_of(files, numbered) for files in folders]


def _asked(
    path: Path, found: Mapping[int, str], prompts: Sequence[Prompt] | None, *, records: bool
) -> dict[int, Prompt]:
    """{number: the prompt of the folder, by its record}; of a folder without a record, the line of its number."""
    if prompts is None:
        last = max(found)
        if gaps := [n for n in range(last) if n not in found]:
            raise UserError(
                f"{path}: {len(gaps)} of {last + 1} prompts have no folder, such as {gaps[0]:05d}, and only a prompt"
                " file says what they asked for; give it with --prompts"
            )
        return {n: replace(_read(path / name, records), negative=None) for n, name in found.items()}
    keys, first = [_key(prompt) for prompt in prompts], _first_lines(prompts)
    asked = {}
    for n, name in found.items():
        file, line = path / name / "metadata.jsonl", n
        if file.exists():
            record = _read(path / name, records)
            key = _key(record)
            if keys[n : n + 1] != [key]:
                line = first.get(key, len(prompts))
            if line == len(prompts) > n:
                raise PromptError(
                    f"{file}: asks for {record.text!r}, the prompt set for {prompts[n].text!r} or by another record"
                )
        if line >= len(prompts):
            raise UserError(f"{path}: {name} lies beyond the {len(prompts)} prompts of the set")
        asked[n] = prompts[line]
    return asked


def _read(folder: Path, records: bool) -> Prompt:
    """The prompt of a folder's record."""
    path = folder / "metadata.jsonl"
    if not path.exists():
        raise PromptError(
            f"{path}: no such file; it holds the record of what was asked for, unless --prompts says it"
        )
    found = parse_prompt(read_text(path), str(path), str(folder))
    if found.spec is None and records:
        raise PromptError(f"{path}: must hold one GenEval record with tag and include")
    return found


def _wanted(
    path: Path,
    has: Mapping[str, int],
    lines: Mapping[str, int],
    images_per_prompt: int | None,
    by_record: bool,
) -> dict[str, int]:
    """{record: how many images it should have}; `by_record`: as many as asked for of each record, and not of each folder,
    unless the folders of one hold more."""
    most = max(-(-held // lines[key]) for key, held in has.items())
    each, wanted = images_per_prompt or most, {}
    for key, held in has.items():
        one = by_record and images_per_prompt and held <= each * (lines[key] - 1)
        wanted[key] = each if one else each * lines[key]
        if held > wanted[key]:
            enough = max(has.values()) if by_record else most
            raise UserError(
                f"{path}: {held} images of one prompt, {wanted[key]} were asked for; give --per-prompt {enough}"
            )
    return wanted


def _absent(there: Mapping[int, Sequence[str]], usual: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Folders and names of further images that should be there: the `usual` names, then the official ones."""
    taken = {(n, _stem(name)) for n, names in there.items() for name in names}
    for name in chain(usual, (f"{number:04d}.png" for number in count())):
        for n in there:
            if (n, _stem(name)) not in taken:
                taken.add((n, _stem(name)))
                yield n, name


def _stem(name: str) -> str:
    """A name without its ending and the zeros of a number."""
    stem = Path(name).stem
    return str(int(stem)) if NUMBERED.fullmatch(stem) else stem


def _key(prompt: Prompt) -> str:
    return record_key(prompt.spec or {}, prompt.text)


def _first_lines(prompts: Sequence[Prompt]) -> dict[str, int]:
    """{record: the first line that asks for it}, in the order of the lines from behind."""
    return {_key(prompt): n for n, prompt in reversed(list(enumerate(prompts)))}


def _listed(folder: Path) -> str:
    """What a folder holds, in a few words."""
    held = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in folder.iterdir())
    more = f" and {len(held) - 3} more" if len(held) > 3 else ""
    return f"{folder} holds {', '.join(held[:3]) or 'nothing'}{more}"
