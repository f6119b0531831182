"""What an evaluation found: one record per image, scores with intervals, files, pairs. Samples and judges nothing.

Prompts of one record and negative are one prompt, wherever they stand in a list and in however many folders.
Shapes: P prompts, N images, prompt by prompt; prompts may have different numbers of images.
Protocol: Ghosh et al. 2023 (arXiv 2310.11513): 4 images per prompt, overall = mean over tasks.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from statistics import fmean, multimode
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import RunError, UserError
from ...files import parse_json, read_given
from ...interfaces import Prompt
from ...prompts.records import TASKS, prompt_key, record_key
from ...run_folder.writer import write_evaluation
from ..intervals import change_intervals, or_none, task_intervals, task_means
from .protocol import Protocol, digest
from .rewards import reward_changes, reward_summary

FORMAT = 1
Record = dict[str, Any]
Asked = tuple[Record, str | None]  # a record with its prompt's text, and the negative
# of one line or folder: its images' records, the negative, and how much the images differ (None if unknown)
Entry = tuple[Sequence[Record], str | None, float | None]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        protocol: how it sampled; its images_per_prompt is that of most prompts.
        negatives: (P) negative prompts, None = the model's own null prompt.
        disagreement: (P) `token_disagreement` of the prompt's images; None if it has a single one.
        records: (N) dicts, one per image: filename, tag, prompt, correct, reason, metadata and details as in
            GenEval's results file (filename: the place of the image in GenEval's folders; details: the objects
            that the verdict looked at, as x0, y0, x1, y1, confidence); colors, the colour of each of these; score,
            the share of passed checks (None if unknown); fault, why there is no image ("" if there is);
            prompt_index, the place p of its prompt; sample_index, its place among the prompt's images.
            Where rewards judge: filename, tag, prompt, metadata, fault, the two places, and rewards, {name: value}.
        about: whatever else is known, such as the model and where the prompts came from.
        images: (N, h, w, 3) uint8 if kept. Not compared, not saved.
    """

    protocol: Protocol
    negatives: list[str | None]
    disagreement: list[float | None]
    records: list[dict[str, Any]]
    about: dict[str, Any] = field(default_factory=dict)
    images: NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def gather(
        cls, protocol: Protocol, entries: Iterable[Entry], about: Mapping[str, Any] | None = None
    ) -> Evaluation:
        """The evaluation of lines or folders, of which those of one record and negative are one prompt."""
        prompts: dict[tuple[str, str | None], list[Entry]] = {}
        for entry in entries:
            (first, *_), negative, _ = entry
            key = record_key(json.loads(first["metadata"]), first["prompt"])
            prompts.setdefault((key, negative), []).append(entry)
        records = [
            record | {"prompt_index": p, "sample_index": g}
            for p, every in enumerate(prompts.values())
            for g, record in enumerate(record for rows, _, _ in every for record in rows)
        ]
        known = [[one[2] for one in every if one[2] is not None] for every in prompts.values()]
        sizes = Counter(record["prompt_index"] for record in records)
        return cls(
            replace(protocol, images_per_prompt=_usual(sizes)),
            [negative for _, negative in prompts],
            [fmean(values) if values else None for values in known],
            records,
            dict(about or {}),
        )

    def rows(self) -> list[list[Record]]:
        """(P) the records of each prompt's images."""
        return [list(rows) for _, rows in groupby(self.records, key=lambda r: r["prompt_index"])]

    def tags(self) -> list[str]:
        """(P) tasks."""
        return [rows[0]["tag"] for rows in self.rows()]

    def asked(self) -> list[Asked]:
        """(P) records with their prompts' texts, and negatives."""
        return [
            ({**json.loads(rows[0]["metadata"]), "prompt": rows[0]["prompt"]}, negative)
            for rows, negative in zip(self.rows(), self.negatives, strict=True)
        ]

    def images_each(self) -> str:
        """How many images a prompt has, such as "4" or "2 to 4"."""
        sizes = {len(rows) for rows in self.rows()}
        return f"{min(sizes)} to {max(sizes)}" if len(sizes) > 1 else f"{max(sizes)}"

    def faults(self) -> list[str]:
        """The images that are missing or unreadable, and therefore wrong, or without a reward: name and reason."""
        return [f"{r['filename']}: {r['fault']}" for r in self.records if r.get("fault")]

    def there(self) -> Evaluation | None:
        """The same without the images that are missing or unreadable; None if no other is left."""
        present = [[r for r in rows if not r.get("fault")] for rows in self.rows()]
        every = zip(present, self.negatives, self.disagreement, strict=True)
        found = [entry for entry in every if entry[0]]
        return Evaluation.gather(self.protocol, found, self.about) if found else None

    def means(self, key: str) -> NDArray[np.float64]:
        """(P) means over each prompt's images of "correct" or "score"; nan where one is unknown."""
        values = [[record[key] for record in rows] for rows in self.rows()]
        return np.array([np.mean(np.array(each, dtype=np.float64)) for each in values])

    def summary(self) -> dict[str, dict[str, Any]]:
        """Scores of every task and of "overall", the mean over tasks (not over images).

        correct: mean over prompts of the fraction of correct images, low and high: its 95% interval (see
        `task_intervals`), partial: mean share of passed checks (None if unknown), pass_at_k: fraction of prompts with a
        correct image, disagreement: mean `token_disagreement` (None if unknown), prompts and images: how many,
        missing: images that are not there. Where rewards judge, see `reward_summary`.
        """
        if self.protocol.rewards:
            return reward_summary(self.rows())
        tags, correct = self.tags(), self.means("correct")
        images = Counter(record["tag"] for record in self.records)
        missing = [record["tag"] for record in self.records if record.get("fault")]
        distances = np.array(self.disagreement, dtype=np.float64)  # None becomes nan
        columns = {
            "partial": task_means(by_task(tags, self.means("score"))),
            "pass_at_k": task_means(by_task(tags, (correct > 0).astype(float))),
            "disagreement": task_means(by_task(tags, distances)),
        }
        scores: dict[str, dict[str, Any]] = {}
        for task, found in task_intervals(by_task(tags, correct)).items():
            prompts = len(tags) if task == "overall" else tags.count(task)
            scores[task] = dict(zip(("correct", "low", "high"), map(or_none, found), strict=True))
            for name, means in columns.items():
                scores[task][name] = or_none(means[task])
            scores[task] |= {
                "prompts": prompts,
                "images": images.total() if task == "overall" else images[task],
                "missing": len(missing) if task == "overall" else missing.count(task),
            }
        return scores

    def to_json(self) -> dict[str, Any]:
        """All but `records`, which go beside it: `run.write_evaluation(name, e.to_json(), e.records)`."""
        texts = [rows[0]["prompt"] for rows in self.rows()]
        rows = zip(texts, self.negatives, self.disagreement, strict=True)
        return {
            "format": FORMAT,
            "about": self.about,
            "protocol": self.protocol.to_dict(),
            "summary": self.summary(),
            "prompts": [{"text": t, "negative": n, "disagreement": d} for t, n, d in rows],
            "records_sha256": digest(self.records),
        }

    @classmethod
    def from_json(
        cls, value: Mapping[str, Any], records: Iterable[Mapping[str, Any]], *, where: str = "value"
    ) -> Evaluation:
        """The evaluation of `to_json` and its records.

        Raises:
            RunError: it is not one, is of a newer format, or the records are not its own; names `where`.
        """
        lines = [dict(record) for record in records]
        try:
            if value["format"] != FORMAT:
                raise RunError(f"format {value['format']!r}; this version reads {FORMAT}")
            protocol, prompts = Protocol(**value["protocol"]), value["prompts"]
            if value["records_sha256"] != digest(lines):
                raise RunError("its lines per image belong to another evaluation or were changed")
            rows: dict[int, list[Record]] = {}
            for line in lines:
                rows.setdefault(line["prompt_index"], []).append(line)
            if not prompts or list(rows) != list(range(len(prompts))):
                raise RunError(
                    f"{len(lines)} images, its prompts are {len(prompts)}, those of the images {len(rows)}"
                )
            entries = [(rows[p], o["negative"], o["disagreement"]) for p, o in enumerate(prompts)]
            found = cls.gather(protocol, entries, value.get("about"))
            found.summary()
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise RunError(f"{where}: not a readable evaluation: {reason}") from error
        return found

    def save(self, folder: Path | str, name: str, also: Mapping[str, Any] | None = None) -> Path:
        """Writes <name>.jsonl (one line per image), then <name>.json, in a plain folder; returns the latter.

        Args:
            also: further keys of the JSON file.

        Raises:
            RunError: the name is not a plain file name, or the disk refuses.
        """
        result = {**self.to_json(), **(also or {})}
        return write_evaluation(Path(folder), name, result, self.records)


def load_evaluation(path: Path | str) -> Evaluation:
    """Reads an evaluation that `save` or a run folder wrote: <name>.json, and <name>.jsonl beside it.

    Raises:
        RunError: one line that names the file and what is wrong with it.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise RunError(f"{path}: not an evaluation; its file ends in .json")
    beside = path.with_suffix(".jsonl")
    value = _parse(path, read_text(path))
    # Only "\n" ends a line: str.splitlines would also cut at a U+2028 inside a JSON text.
    lines = enumerate(read_text(beside).split("\n"), 1)
    records = [_parse(f"{beside}, line {n}", line) for n, line in lines if line.strip()]
    return Evaluation.from_json(value, records, where=str(path))


def paired(before: Evaluation, after: Evaluation) -> dict[str, dict[str, float | None]]:
    """What changed between two evaluations of the same prompts: under the same noise if both were sampled here.

    Returns:
        for every task and for "overall", the mean over tasks: before and after (fractions of correct images),
        before_low and before_high (95% interval, see `task_intervals`), change = after - before, low and high: its
        95% interval, see `change_intervals`; None where too little is known. Where rewards judge, see `reward_changes`.

    Raises:
        UserError: prompts, seed or protocol (save for the batch size) differ.
    """
    places = match(before, after.protocol, after.asked())
    if after.protocol.rewards:
        rows = before.rows()
        return reward_changes([rows[place] for place in places], after.rows())
    tags, second = after.tags(), after.means("correct")
    first = before.means("correct")[places]
    earlier, later = task_intervals(by_task(tags, first)), task_means(by_task(tags, second))
    changes = change_intervals(by_task(tags, second - first))
    names = ("before", "before_low", "before_high", "after", "change", "low", "high")
    return {
        task: dict(zip(names, map(or_none, (*earlier[task], later[task], *change)), strict=True))
        for task, change in changes.items()
    }


def match(before: Evaluation, protocol: Protocol, asked: Sequence[Asked]) -> list[int]:
    """Which of the prompts of `before` each of these is.

    Raises:
        UserError: `before` cannot be paired with an evaluation of these prompts under this protocol.
    """
    if difference := before.protocol.difference(protocol):
        raise UserError(
            f"these evaluations cannot be paired: {difference}; evaluate both under one protocol"
        )

    def keys(every: Sequence[Asked], negatives: bool) -> list[tuple[str, str | None]]:
        return [(record_key(r, r["prompt"]), n if negatives else None) for r, n in every]

    theirs, ours = keys(before.asked(), True), keys(asked, True)
    sampled = None not in (before.protocol.cfg_scale, protocol.cfg_scale)
    if not sampled and set(theirs) != set(ours):  # nobody may know the negatives of one of them
        theirs, ours = keys(before.asked(), False), keys(asked, False)
    if len(theirs) != len(set(ours)):
        raise UserError(
            f"these evaluations cannot be paired: {len(theirs)} prompts before and {len(set(ours))}"
            " after; evaluate both on one prompt set"
        )
    places = {one: p for p, one in enumerate(theirs)}
    if other := [p for p, one in enumerate(ours) if one not in places]:
        key = next((one for one in theirs if one not in ours), theirs[0])[0]
        raise UserError(
            f"these evaluations cannot be paired: prompt {other[0]} ({json.loads(key)['prompt']!r} before,"
            f" {asked[other[0]][0]['prompt']!r} after) differs in its text, negative or record"
        )
    return [places[one] for one in ours]


def usual_size(prompts: Sequence[Prompt], sizes: Sequence[int]) -> int:
    """How many images most prompts have, if each of these lines or folders has so many."""
    found: Counter[tuple[str, str | None]] = Counter()
    for prompt, size in zip(prompts, sizes, strict=True):
        found[prompt_key(prompt)] += size
    return _usual(found)


def _usual(sizes: Mapping[Any, int]) -> int:
    """The most frequent of the sizes, of several the largest."""
    return max(multimode(sizes.values()))


def read_text(path: Path) -> str:
    """A text file, whole. Raises RunError if there is none, or it is none."""
    try:
        return read_given(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise RunError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text (UTF-8)"
        raise RunError(f"{path}: cannot be read: {reason}") from None


def _parse(where: Path | str, text: str) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError:
        raise RunError(f"{where}: damaged, not JSON") from None
    if not isinstance(value, dict):
        raise RunError(f"{where}: holds a {type(value).__name__}, not an object")
    return value


def by_task(tags: Sequence[str], values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Splits values (P) by the tasks of their prompts: the official tasks first, in their order."""
    given = list(dict.fromkeys(tags))
    order = [task for task in TASKS if task in given] + [t for t in given if t not in TASKS]
    labels = np.array(tags)
    return {task: values[labels == task] for task in order}
