"""Reads run folders, also while they are being written. The layout is that of writer.py, which
users import this from. Shapes: N kept samples of a step, T = H*W image tokens."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from safetensors import SafetensorError

from ..errors import RunError
from ..files import parse_small_json, regular_file, require_small
from ..yaml_text import parse_yaml
from .atomic import cannot
from .checks import check_record, load_few
from .layout import FORMAT, contained, evaluation_path, numbered_folders, require_within, step_name
from .status import STALE_AFTER, RunStatus, run_status, whole

# Bytes that are read of a file at most: many times what the writer leaves, and little enough for the app
MOST_CONFIG, MOST_SETTINGS = 32 << 10, 1 << 20
MOST_RECORDS, MOST_ARRAYS, MOST_METRICS = 16 << 20, 32 << 20, 512 << 20
MOST_LINE = 1 << 20  # of metrics
MOST_PICTURE, MOST_PIXELS = 32 << 20, 2048 * 2048
# What reading says of a bad file, JSON and safetensors; KeyError: numbers that numpy lacks
_BAD = (OSError, ValueError, TypeError, KeyError, RecursionError, SafetensorError)


@dataclass(frozen=True)
class StepRecord:
    """One recorded step with N kept samples.

    Attributes:
        folder, step, group_size, codebook_size: where, when, G, V.
        grid: (H, W).
        samples: N dicts: image, index, group, prompt, negative, spec, reward, reward_parts,
            reward_normalized, advantage, gold, objects.
        arrays: {name: (N, T)}: tokens int32; logprobs, guided_logprobs, credit, token_advantages,
            entropy and, where known, negative_logprobs, contrast, value_change and reward_map,
            float32.
        within: the folder that pictures must lie in, whatever names and links say; None = anywhere.
    """

    folder: Path
    step: int
    grid: tuple[int, int]
    group_size: int
    codebook_size: int
    samples: list[dict[str, Any]]
    arrays: dict[str, np.ndarray]
    within: Path | None = None

    def image(self, place: int) -> Image.Image:
        """The decoded image of the sample at `place` (0..N-1)."""
        return read_picture(self.folder / self.samples[place]["image"], self.within)

    def signed_contrast(self) -> np.ndarray | None:
        """(N, T) logprobs - negative_logprobs; None if the negative branch never ran."""
        negative = self.arrays.get("negative_logprobs")
        return None if negative is None else self.arrays["logprobs"] - negative


class RunReader:
    """Reads one run folder, also while the run is going on. Raises RunError for what is no run or a
    newer format.

    Args:
        path: the run folder.
        within: a folder that no file may be read from outside of, symbolic links followed; None =
            no such limit.
        strict: whether environment.json must be there and whole; without it config.yaml is enough.
    """

    def __init__(
        self, path: Path | str, *, within: Path | str | None = None, strict: bool = True
    ) -> None:
        self.path = Path(path)
        self.within = None if within is None else Path(within).resolve()
        told = (self.path / "environment.json").is_file()
        if not told and (strict or not (self.path / "config.yaml").is_file()):
            raise RunError(f"{self.path}: not a run folder (no environment.json in it)")
        found: Any = FORMAT
        try:
            found = self.environment().get("format", None if strict else FORMAT)
        except RunError:
            if strict:
                raise
        if not isinstance(found, int) or not 1 <= found <= FORMAT:
            raise RunError(
                f"{self.path}: run folder format {found!r}; this version reads {FORMAT}: update it"
            )

    def environment(self) -> dict[str, Any]:
        """Versions, device, seed, commit; `resumed` lists the environments of later starts."""
        return self._json(self.path / "environment.json", MOST_SETTINGS)

    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        path = self.path / "config.yaml"
        parse = partial(parse_yaml, where="damaged")
        found = self._read(path, parse, MOST_CONFIG) or {}
        if not isinstance(found, dict):
            raise RunError(f"{path}: holds {found!r:.60}, not sections (model: ...)")
        return found

    def status(self, *, stale_after: float = STALE_AFTER, strict: bool = True) -> RunStatus:
        """How the run stands; `stale_after` seconds of silence mean that it was killed. With `strict`, a
        status.json that is missing or damaged raises RunError, without it the run is `unreadable`."""
        path = self.path / "status.json"
        try:
            known = self._json(path, MOST_SETTINGS)
            try:
                return run_status(self.path, known, stale_after)
            except (KeyError, TypeError) as error:
                raise RunError(f"{path}: not a run status: {error}") from error
        except RunError as error:
            if strict:
                raise
            return RunStatus(self.path, "unreadable", message=str(error))

    def metrics(self, *, strict: bool = True) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl so far; one that is still being written is left out. With
        `strict`, a damaged line raises RunError, without it the line is left out too."""
        return self.metrics_from(0, strict=strict)[0]

    def metrics_from(
        self,
        start: int,
        *,
        strict: bool = True,
        most: int | None = None,
        keep: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> tuple[list[dict[str, Any]], int]:
        """`metrics`, of the lines from byte `start` on, and the byte where the next one begins.

        Args:
            start: where a line begins.
            strict: see `metrics`.
            most: about so many bytes of lines are parsed, at equal distances, and the last one; None = all.
            keep: what of a line is kept in memory.
        """
        path = self.path / "metrics.jsonl"
        metrics: list[dict[str, Any]] = []
        end, damaged, last = start, 0, b""
        try:
            with regular_file(contained(path, self.within), MOST_METRICS) as file:
                every = -(-max(1, os.fstat(file.fileno()).st_size - start) // (most or sys.maxsize))
                file.seek(start)
                for number, (line, size) in enumerate(_lines(file)):
                    end += size
                    last = line if number % every else b""
                    if number % every:
                        continue
                    if (entry := _metrics_of(line)) is not None:
                        metrics.append(keep(entry))
                    elif not damaged:
                        damaged = number + 1
        except FileNotFoundError:
            return [], start
        except (OSError, ValueError) as error:
            raise cannot("read", path, error) from error
        if damaged and strict:
            raise RunError(f"{path}, line {damaged}: damaged, not a line of metrics")
        if last and (entry := _metrics_of(last)) is not None:
            metrics.append(keep(entry))
        return metrics, end

    def sorted_metrics(self) -> tuple[list[dict[str, Any]], list[tuple[int, bytes]]]:
        """The lines of metrics.jsonl, and number and content of those that are damaged; one that was never finished is left
        out."""
        try:
            with regular_file(self.path / "metrics.jsonl", MOST_METRICS) as file:
                lines = file.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return [], []
        except (OSError, ValueError) as error:
            raise cannot("read", self.path / "metrics.jsonl", error) from error
        found = [(n, line, _metrics_of(line)) for n, line in enumerate(lines, start=1)]
        whole_ones = [entry for _, _, entry in found if entry is not None]
        return whole_ones, [(n, line) for n, line, entry in found if entry is None]

    def steps(self) -> list[int]:
        """The recorded steps, ascending."""
        return numbered_folders(self.path / "steps")

    def checkpoints(self) -> list[int]:
        """The steps with a complete checkpoint, ascending."""
        return numbered_folders(self.path / "checkpoints")

    def checkpoint(self, step: int) -> Path:
        """The folder of a checkpoint. Raises RunError where it is missing, or where it or a file of
        it leads out of `within`."""
        if step not in self.checkpoints():
            raise RunError(f"{self.path}: there is no checkpoint of step {step}")
        folder = self.path / "checkpoints" / step_name(step)
        require_within(folder, self.within)
        return folder

    def step(self, step: int | None = None) -> StepRecord:
        """One recorded step; None = the latest."""
        known = self.steps()
        if not known:
            raise RunError(f"{self.path}: no step has been recorded yet")
        step = known[-1] if step is None else step
        if step not in known:
            raise RunError(f"{self.path}: step {step} is not recorded; recorded: {_ranges(known)}")
        folder = self.step_folder(step)
        header = self._json(folder / "samples.json")
        if header.get("text"):
            raise RunError(
                f"{self.path}: is a run on text, which has no images: t2i-credit heatmap shows it"
            )
        arrays = self._read(folder / "arrays.safetensors", load_few, MOST_ARRAYS)
        try:
            height, width = header["grid"]
            sizes = (header["group_size"], header["codebook_size"])
            samples = header["samples"]
            record = StepRecord(folder, step, (height, width), *sizes, samples, arrays, self.within)
            if not isinstance(samples, list):
                raise TypeError(f"samples: {samples!r:.60}")
        except (KeyError, ValueError, TypeError) as error:
            raise RunError(f"{folder / 'samples.json'}: not a recorded step: {error!r}") from error
        check_record(record)
        return record

    def step_folder(self, step: int) -> Path:
        """Where a step is recorded; it need not be."""
        return self.path / "steps" / step_name(step)

    def samples(self, step: int) -> list[dict[str, Any]]:
        """The samples of one recorded step, as in `StepRecord`, without arrays: much less to read."""
        path = self.step_folder(step) / "samples.json"
        samples = self._json(path).get("samples")
        if not isinstance(samples, list):
            raise RunError(f"{path}: not a recorded step: no samples")
        return samples

    def is_text(self) -> bool:
        """Whether it is a run on text, whose steps have samples and no arrays or images."""
        return "grpo" in self.config()

    def evaluations(self) -> list[str]:
        """Names of the complete evaluations."""
        return sorted(p.stem for p in (self.path / "evaluations").glob("[!.]*.json"))

    def _evaluation(self, name: str) -> Path:
        return evaluation_path(self.path / "evaluations", name)

    def evaluation(self, name: str) -> dict[str, Any]:
        """The scores of an evaluation."""
        return self._json(self._evaluation(name))

    def evaluation_images(self, name: str) -> list[dict[str, Any]]:
        """One dict per image of an evaluation; [] when it kept none."""
        path = self._evaluation(name).with_name(f"{name}.jsonl")
        try:
            return self._read(path, _json_lines)
        except RunError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return []
            raise

    def evaluation_image(self, name: str, filename: str) -> Image.Image | None:
        """One image of an evaluation, by its `filename` in the records; None when its pixels were
        not kept."""
        folder = self._evaluation(name).with_suffix("")
        path = contained(folder / filename, self.within or folder.resolve())
        formats = ("PNG", "JPEG", "WEBP")  # a folder of images that was judged holds such
        return read_picture(path, None, formats) if path.is_file() else None

    def heatmaps(self, step: int | None = None) -> Path:
        """Where pictures drawn from a step (None: from the whole run) go, unless told otherwise."""
        folder = self.path / "heatmaps" / ("" if step is None else step_name(step))
        return contained(folder, self.path.resolve())

    def _read(self, path: Path, parse: Callable[[bytes], Any], most: int = MOST_RECORDS) -> Any:
        return read_bounded(path, parse, most, self.within)

    def _json(self, path: Path, most: int = MOST_RECORDS) -> dict[str, Any]:
        value = self._read(path, parse_small_json, most)
        if not isinstance(value, dict):
            raise RunError(f"{path}: holds a {type(value).__name__}, not an object")
        return value


def list_runs(folder: Path | str, *, within: Path | str | None = None) -> list[RunStatus]:
    """The runs in a folder (or the one that it is): running ones first, then the newest; [] when
    there are none. A run that cannot be read is listed as unreadable, at the end. `within`: as in
    `RunReader`."""
    folder = Path(folder)
    found = []
    try:
        candidates = [folder, *(p for p in folder.iterdir() if not p.name.startswith("."))]
    except OSError:
        return []
    for path in candidates:
        if not (path / "environment.json").is_file():
            continue
        try:
            found.append(RunReader(path, within=within).status())
        except RunError as error:
            found.append(RunStatus(path, "unreadable", message=str(error)))
    return sorted(found, key=lambda run: (run.state != "running", -run.started, run.path.name))


def read_bounded(path: Path, parse: Callable[[bytes], Any], most: int, within: Path | None) -> Any:
    """What `parse` makes of the bytes of a file inside `within`, at most so many. Raises RunError."""
    inside = contained(path, within)
    try:
        with regular_file(inside, most) as file:
            return parse(file.read(most))
    except _BAD as error:
        raise cannot("read", path, error) from error


def read_picture(
    path: Path, within: Path | None, formats: tuple[str, ...] = ("PNG",)
) -> Image.Image:
    """A picture file inside `within`, of the formats that a run writes. Raises RunError."""
    inside = contained(path, within)
    try:
        with (
            regular_file(inside, MOST_PICTURE) as opened,
            Image.open(opened, formats=formats) as file,
        ):
            width, height = file.size
            if width * height > MOST_PIXELS:  # before any is decoded
                raise ValueError(f"it has {width} x {height} pixels, too many")
            return file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # PIL reports a broken PNG chunk as a SyntaxError
        raise cannot("read", path, error) from error


def _ranges(steps: list[int]) -> str:
    if len(steps) > 8:
        return f"{steps[0]}, {steps[1]}, ..., {steps[-1]}"
    return ", ".join(map(str, steps))


def _json_lines(text: bytes) -> list[Any]:
    require_small(text)
    return [json.loads(line) for line in text.splitlines() if line]


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The lines of a file that are whole, and their sizes; one that is far too long is empty here."""
    while line := file.readline(MOST_LINE):
        kept, size = line, len(line)
        while not line.endswith(b"\n"):
            if not (line := file.readline(MOST_LINE)):
                return
            kept, size = b"", size + len(line)
        yield kept, size


def _metrics_of(line: bytes) -> dict[str, Any] | None:
    """The metrics of a line; None if it is damaged."""
    try:
        entry: dict[str, Any] = json.loads(line)
        return entry if whole(entry["step"]) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
