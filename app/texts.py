"""From a recorded step of a run on text to what the browser draws: the tokens of each answer, their numbers, one colour
scale per group, all of them as CSV. Reads no file itself (see run_folder/reader.py).

Shapes: N kept answers of a step, T tokens, another number of them in each answer.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import RunError
from ..heatmap.sample import SampleView, common_scale
from ..heatmap.text import printable, spoken, visible
from ..run_folder.checks import is_number
from ..run_folder.reader import RunReader
from ..run_folder.status import whole
from .downloads import ASKED, Made, asked_cells, cell
from .payload import MISSING, scale_payload

LONGEST = 400  # letters of a token that are drawn
NEEDED = ("logprobs", "credit", "token_advantages")  # without which an answer cannot be shown
OPTIONAL = ("negative_logprobs", "contrast", "entropy")
COLUMNS = (*NEEDED, "negative_logprobs", "signed_contrast", "contrast", "entropy")  # of a table


@dataclass(frozen=True)
class TextStep:
    """One recorded step of a run on text.

    Attributes:
        folder, step: where, when.
        samples: N dicts, as in samples.json.
        numbers: of each sample {list of samples.json: (T,) float32}, NaN for what was not finite.
    """

    folder: Path
    step: int
    samples: list[dict[str, Any]]
    numbers: list[dict[str, NDArray[np.float32]]]


def is_text(reader: RunReader) -> bool:
    """Whether it is a run on text, as far as its configuration can be read."""
    try:
        return reader.is_text()
    except RunError:
        return False


def text_step(reader: RunReader, step: int) -> TextStep:
    """One recorded step of a run on text.

    Raises:
        RunError: it cannot be read, or its parts do not belong together.
    """
    folder = reader.step_folder(step)
    samples = reader.samples(step)
    if not samples:
        raise RunError(f"{folder}: no sample was recorded")
    try:
        numbers = [_checked(sample) for sample in samples]
        if any(set(one) != set(numbers[0]) for one in numbers):
            raise ValueError("not every sample has the same lists")
        return TextStep(folder, step, samples, numbers)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        path = folder / "samples.json"
        raise RunError(f"{path}: not a recorded step of text: {error!r}") from error


def text_payload(record: TextStep, places: Sequence[int]) -> dict[str, Any]:
    """What the browser needs to show one group of a step.

    Args:
        record: the step.
        places: of the group's answers in the step.
    """
    first = record.samples[places[0]]
    return {
        "text": True,
        "step": record.step,
        "prompt": spoken(first["prompt"]),
        "negative": None if first["negative"] is None else spoken(first["negative"]),
        "scale": scale_payload(common_scale([_view(record, place) for place in places])),
        "samples": [_answer(record, place) for place in places],
    }


def text_csv(record: TextStep, places: Sequence[int]) -> Made:
    """One line per token of a group: where it is, its text, every number that is known of it."""
    known = [name for name in COLUMNS if name in _with_contrast(record.numbers[places[0]])]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    about_answer = ["step", "sample", *ASKED, "reward", "advantage"]
    table.writerow([*about_answer, "token", "text", *known])
    for place in places:
        sample, numbers = record.samples[place], _with_contrast(record.numbers[place])
        about = [record.step, place, *asked_cells(sample, "none")]
        about += [sample["reward"], sample["advantage"]]
        for token, piece in enumerate(sample["tokens"]):
            values = [repr(float(numbers[name][token])) for name in known]
            table.writerow([*about, token, cell(printable(piece)), *values])
    return "csv", "text/csv", base64.b64encode(text.getvalue().encode()).decode()


def _with_contrast(numbers: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """The numbers of an answer, with the signed contrast where both log-probabilities are known."""
    if "negative_logprobs" not in numbers:
        return numbers
    return {**numbers, "signed_contrast": numbers["logprobs"] - numbers["negative_logprobs"]}


def _checked(sample: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """The numbers of an answer that has everything that is shown; ValueError and the like if not."""
    _ = (spoken(sample["prompt"]), sample["gold"])
    if not whole(sample["group"]):
        raise ValueError("group: not a number")
    if sample["negative"] is not None:
        spoken(sample["negative"])
    parts = sample.get("reward_parts") or {}
    _numbers([sample["reward"], sample["advantage"], *parts.values()])
    tokens = sample["tokens"]
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise ValueError("tokens: not a list of texts")
    numbers = {name: _numbers(sample[name]) for name in NEEDED}
    numbers |= {name: _numbers(sample[name]) for name in OPTIONAL if name in sample}
    for name, values in numbers.items():
        if len(values) != len(tokens):
            raise ValueError(f"{name}: {len(values)} numbers for {len(tokens)} tokens")
    return numbers


def _numbers(values: Sequence[Any]) -> NDArray[np.float32]:
    """(T,) with NaN for null, which stands for what was not finite."""
    if not isinstance(values, list) or not all(map(is_number, values)):
        raise ValueError("not a list of numbers")
    return np.array([np.nan if value is None else value for value in values], dtype=np.float32)


def _view(record: TextStep, place: int) -> SampleView:
    """An answer as a picture of one row, so that its colours have the scale of pictures."""
    sample, numbers = record.samples[place], record.numbers[place]
    values = {name: _at_least_one(array) for name, array in numbers.items()}
    return SampleView(
        image=MISSING,
        grid=(1, len(values["credit"])),
        credit=values["credit"],
        contrast=values.get("contrast"),
        signed_contrast=_with_contrast(values).get("signed_contrast"),
        token_advantages=values["token_advantages"],
        prompt="",
        negative=None,
        reward=sample["reward"] or 0.0,
        advantage=sample["advantage"] or 0.0,
    )


def _at_least_one(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A scale needs a number; a cut-off answer whose tokens are masked has none."""
    return values if len(values) else np.zeros(1, np.float32)


def _answer(record: TextStep, place: int) -> dict[str, Any]:
    """One answer: its tokens as they are drawn and in quotes, its numbers as base64 of float32 (NaN: not finite)."""
    sample, numbers = record.samples[place], record.numbers[place]
    return {
        "place": place,
        "reward": sample["reward"],
        "parts": {printable(n): part for n, part in (sample.get("reward_parts") or {}).items()},
        "advantage": sample["advantage"],
        "gold": bool(sample["gold"]),
        "objects": [],
        "pills": [visible(token[:LONGEST]) for token in sample["tokens"]],
        "quoted": [repr(token[:LONGEST]) for token in sample["tokens"]],
        "arrays": {
            name: base64.b64encode(values.astype("<f4").tobytes()).decode()
            for name, values in numbers.items()
        },
    }
