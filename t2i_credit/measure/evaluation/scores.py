"""What an evaluation found: one record per image, scores with intervals, files, pairs. Samples and judges nothing.

Shapes: P prompts, G images of each. Image g of prompt p is record p * G + g.
Protocol: Ghosh et al. 2023 (arXiv 2310.11513): 4 images per prompt, overall = mean over tasks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import RunError, UserError
from ...prompts.records import TASKS
from ...run_folder.writer import write_evaluation
from ..intervals import change_intervals, task_intervals, task_means
from .protocol import Protocol

FORMAT = 1
Asked = tuple[dict[str, Any], str | None]  # a record with its prompt's text, and the negative


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        protocol: how it sampled.
        negatives: (P) negative prompts, None = the model's own null prompt.
        disagreement: (P) `token_disagreement` of the prompt's images; None if it has a single one.
        records: (P*G) dicts, one per image: filename, tag, prompt, correct, reason, metadata and details as in
            GenEval's results file (filename: the place of the image in GenEval's folders; details: the objects
            that the verdict looked at, as x0, y0, x1, y1, confidence); colors, the colour of each of these; score,
            the share of passed checks; fault, why there is no image ("" if there is); prompt_index p,
            sample_index g.
        about: whatever else is known, such as the model and where the prompts came from.
        images: (P*G, h, w, 3) uint8 if kept. Not compared, not saved.
    """

    protocol: Protocol
    negatives: list[str | None]
    disagreement: list[float | None]
    records: list[dict[str, Any]]
    about: dict[str, Any] = field(default_factory=dict)
    images: NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)

    def tags(self) -> list[str]:
        """(P) tasks."""
        return [record["tag"] for record in self.records[:: self.protocol.images_per_prompt]]

    def asked(self) -> list[Asked]:
        """(P) records with their prompts' texts, and negatives."""
        rows = self.records[:: self.protocol.images_per_prompt]
        return [
            (json.loads(row["metadata"]), negative)
            for row, negative in zip(rows, self.negatives, strict=True)
        ]

    def faults(self) -> list[str]:
        """The images that are missing or unreadable, and therefore judged as wrong: name and reason."""
        return [f"{r['filename']}: {r['fault']}" for r in self.records if r.get("fault")]

    def column(self, key: str) -> NDArray[np.float64]:
        """(P, G) values of "correct" or "score"."""
        values = np.array([record[key] for record in self.records], dtype=np.float64)
        return values.reshape(-1, self.protocol.images_per_prompt)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Scores of every task and of "overall", the mean over tasks (not over images).

        correct: fraction of correct images, low and high: its 95% interval (see `task_intervals`), partial: mean
        share of passed checks, pass_at_k: fraction of prompts with a correct image among their G, disagreement:
        mean `token_disagreement` (None if unknown), prompts and images: how many, missing: images that are not there.
        """
        tags, correct = self.tags(), self.column("correct")
        missing = [record["tag"] for record in self.records if record.get("fault")]
        distances = np.array(self.disagreement, dtype=np.float64)  # None becomes nan
        columns = {
            "partial": task_means(by_task(tags, self.column("score").mean(1))),
            "pass_at_k": task_means(by_task(tags, correct.max(1))),
            "disagreement": task_means(by_task(tags, distances)),
        }
        scores: dict[str, dict[str, Any]] = {}
        for task, found in task_intervals(by_task(tags, correct.mean(1))).items():
            prompts = len(tags) if task == "overall" else tags.count(task)
            scores[task] = dict(zip(("correct", "low", "high"), map(_known, found), strict=True))
            for name, means in columns.items():
                scores[task][name] = _known(means[task])
            scores[task] |= {
                "prompts": prompts,
                "images": prompts * correct.shape[1],
                "missing": len(missing) if task == "overall" else missing.count(task),
            }
        return scores

    def to_json(self) -> dict[str, Any]:
        """All but `records`, which go beside it: `run.write_evaluation(name, e.to_json(), e.records)`."""
        texts = [record["prompt"] for record in self.records[:: self.protocol.images_per_prompt]]
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
            found = cls(
                protocol,
                [prompt["negative"] for prompt in prompts],
                [prompt["disagreement"] for prompt in prompts],
                lines,
                dict(value.get("about", {})),
            )
            if value["records_sha256"] != digest(lines):
                raise RunError("its lines per image belong to another evaluation or were changed")
            shape = (len(prompts), protocol.images_per_prompt)
            if not prompts or found.column("correct").shape != shape:
                raise RunError(f"{len(lines)} images, its prompts and protocol ask for {shape}")
            found.summary()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
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
    value = _parse(path, _read(path))
    # Only "\n" ends a line: str.splitlines would also cut at a U+2028 inside a JSON text.
    lines = enumerate(_read(beside).split("\n"), 1)
    records = [_parse(f"{beside}, line {n}", line) for n, line in lines if line.strip()]
    return Evaluation.from_json(value, records, where=str(path))


def paired(before: Evaluation, after: Evaluation) -> dict[str, dict[str, float | None]]:
    """What changed between two evaluations of the same prompts: under the same noise if both were sampled here.

    Returns:
        for every task and for "overall", the mean over tasks: before and after (fractions of correct images),
        before_low and before_high (95% interval, see `task_intervals`), change = after - before, low and high: its
        95% interval, see `change_intervals`; None where too little is known.

    Raises:
        UserError: prompts, seed or protocol (save for the batch size) differ.
    """
    check_pair(before, after.protocol, after.asked())
    tags = before.tags()
    first, second = (e.column("correct").mean(1) for e in (before, after))
    earlier, later = task_intervals(by_task(tags, first)), task_means(by_task(tags, second))
    changes = change_intervals(by_task(tags, second - first))
    names = ("before", "before_low", "before_high", "after", "change", "low", "high")
    return {
        task: dict(zip(names, map(_known, (*earlier[task], later[task], *change)), strict=True))
        for task, change in changes.items()
    }


def check_pair(before: Evaluation, protocol: Protocol, asked: Sequence[Asked]) -> None:
    """Raises UserError unless `before` can be paired with an evaluation of these prompts under this protocol."""
    if difference := before.protocol.difference(protocol):
        raise UserError(
            f"these evaluations cannot be paired: {difference}; evaluate both under one protocol"
        )
    theirs = before.asked()
    if len(theirs) != len(asked):
        raise UserError(
            f"these evaluations cannot be paired: {len(theirs)} prompts before and {len(asked)} after;"
            " evaluate both on one prompt set"
        )
    sampled = None not in (before.protocol.cfg_scale, protocol.cfg_scale)
    for p, ((first, negative), (second, other)) in enumerate(zip(theirs, asked, strict=True)):
        if first != second or (sampled and negative != other):
            raise UserError(
                f"these evaluations cannot be paired: prompt {p} ({first['prompt']!r} before,"
                f" {second['prompt']!r} after) differs in its text, negative or record"
            )


def _known(value: float) -> float | None:
    """None in place of nan, as JSON has it."""
    return None if math.isnan(value) else value


def digest(value: Any) -> str:
    """SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise RunError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text (UTF-8)"
        raise RunError(f"{path}: cannot be read: {reason}") from None


def _parse(where: Path | str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
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
