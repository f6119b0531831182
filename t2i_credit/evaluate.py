"""GenEval-style evaluation: seeded images of every prompt, verdicts, scores with intervals. Trains nothing.

Model and detector are passed in. Shapes: P prompts, G images of each, T image tokens in raster order. Image g of
prompt p is sample p * G + g, and its noise depends on (seed, sample) alone, not on the batch it is sampled in.

Protocol: Ghosh et al. 2023 (arXiv 2310.11513): 4 images per prompt, overall = mean over tasks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .errors import PromptError, RunError, UserError
from .geneval import Detection, judge, validate_spec
from .interfaces import ImageTokenModel, Prompt
from .intervals import by_task, task_intervals, task_means, token_disagreement
from .pixels import to_uint8
from .rollout import derive_seed, sample_rollout
from .run_folder import write_atomic, write_json

Detect = Callable[[NDArray[np.uint8]], list[dict[str, list[Detection]]]]  # (N, h, w, 3) to N dicts
Progress = Callable[[int, int], None]  # done, of

EVALUATION_DOMAIN = 0x6576616C  # "eval": seeds derived under it are no seeds of training
FORMAT = 1


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (_is_integer(value) or isinstance(value, float)) and math.isfinite(value)


_ALLOWED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "images_per_prompt": ("an integer of at least 1", lambda v: _is_integer(v) and v >= 1),
    "cfg_scale": ("a number of at least 1", lambda v: _is_number(v) and v >= 1),
    "temperature": ("a number above 0", lambda v: _is_number(v) and v > 0),
    "top_k": ("an integer, 0 (off) or more", lambda v: _is_integer(v) and v >= 0),
    "top_p": ("a number above 0, at most 1 (off)", lambda v: _is_number(v) and 0 < v <= 1),
    "seed": ("an integer, 0 to 2**63 - 1", lambda v: _is_integer(v) and 0 <= v < 2**63),
    "batch_size": ("an integer of at least 1", lambda v: _is_integer(v) and v >= 1),
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How an evaluation samples. All but `batch_size` decide about its images.

    Attributes:
        images_per_prompt: G, the k of pass@k.
        cfg_scale: guidance scale, 1 = none.
        temperature, top_k, top_p: after guidance; top_k 0 and top_p 1 = no truncation.
        seed: from 0; evaluations of one seed draw the same noise and can be paired.
        batch_size: samples per forward pass.

    Raises:
        UserError: a setting out of range.
    """

    images_per_prompt: int = 4
    cfg_scale: float
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name, (allowed, fits) in _ALLOWED.items():
            if not fits(getattr(self, name)):
                raise UserError(f"{name}: {getattr(self, name)!r}; allowed is {allowed}")

    def to_dict(self) -> dict[str, int | float]:
        """{setting: value}."""
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        protocol: how it sampled.
        negatives: (P) negative prompts, None = the model's own null prompt.
        disagreement: (P) `token_disagreement` of the prompt's images; None if it has a single one.
        records: (P*G) dicts, one per image: filename, tag, prompt, correct, reason, metadata and details as in
            GenEval's results file (filename: the place of the image in GenEval's folders; details: every detection,
            as x0, y0, x1, y1, confidence); score, the share of passed checks; prompt_index p, sample_index g.
        images: (P*G, h, w, 3) uint8 if kept. Not compared, not saved.
    """

    protocol: Protocol
    negatives: list[str | None]
    disagreement: list[float | None]
    records: list[dict[str, Any]]
    images: NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)

    def tags(self) -> list[str]:
        """(P) tasks."""
        return [record["tag"] for record in self.records[:: self.protocol.images_per_prompt]]

    def column(self, key: str) -> NDArray[np.float64]:
        """(P, G) values of "correct" or "score"."""
        values = np.array([record[key] for record in self.records], dtype=np.float64)
        return values.reshape(-1, self.protocol.images_per_prompt)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Scores of every task and of "overall", the mean over tasks (not over images).

        correct: fraction of correct images, low and high: its 95% interval (see `task_intervals`), partial: mean
        share of passed checks, pass_at_k: fraction of prompts with a correct image among their G, disagreement:
        mean `token_disagreement` (None if G is 1), prompts and images: how many.
        """
        tags, correct = self.tags(), self.column("correct")
        distances = np.array(self.disagreement, dtype=np.float64)  # None becomes nan
        columns = {
            "partial": task_means(by_task(tags, self.column("score").mean(1))),
            "pass_at_k": task_means(by_task(tags, correct.max(1))),
            "disagreement": task_means(by_task(tags, distances)),
        }
        scores: dict[str, dict[str, Any]] = {}
        for task, found in task_intervals(by_task(tags, correct.mean(1))).items():
            prompts = len(tags) if task == "overall" else tags.count(task)
            scores[task] = dict(zip(("correct", "low", "high"), found, strict=True))
            for name, means in columns.items():
                scores[task][name] = None if math.isnan(means[task]) else means[task]
            scores[task] |= {"prompts": prompts, "images": prompts * correct.shape[1]}
        return scores

    def to_json(self) -> dict[str, Any]:
        """All but `records`, which go beside it: `run.write_evaluation(name, e.to_json(), e.records)`."""
        texts = [record["prompt"] for record in self.records[:: self.protocol.images_per_prompt]]
        rows = zip(texts, self.negatives, self.disagreement, strict=True)
        return {
            "format": FORMAT,
            "protocol": self.protocol.to_dict(),
            "summary": self.summary(),
            "prompts": [{"text": t, "negative": n, "disagreement": d} for t, n, d in rows],
            "records_sha256": _digest(self.records),
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
            )
            if value["records_sha256"] != _digest(lines):
                raise RunError("its lines per image belong to another evaluation or were changed")
            shape = (len(prompts), protocol.images_per_prompt)
            if not prompts or found.column("correct").shape != shape:
                raise RunError(f"{len(lines)} images, its prompts and protocol ask for {shape}")
            found.summary()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise RunError(f"{where}: not a readable evaluation: {reason}") from error
        return found

    def save(self, folder: Path | str, name: str) -> Path:
        """Writes <name>.jsonl (one line per image), then <name>.json, in a plain folder; returns the latter.

        Raises:
            RunError: the name is not a plain file name, or the disk refuses.
        """
        if not name or name.startswith(".") or Path(name).name != name:
            raise RunError(f"evaluation name {name!r}: must be a plain file name, without slashes")
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder}: cannot be written: {error.strerror}") from error
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in self.records]
        write_atomic(folder / f"{name}.jsonl", "".join(lines).encode())
        write_json(folder / f"{name}.json", self.to_json())
        return folder / f"{name}.json"


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


def evaluate(
    model: ImageTokenModel,
    prompts: Sequence[Prompt],
    detect: Detect,
    protocol: Protocol,
    *,
    progress: Progress | None = None,
    keep_images: bool = False,
) -> Evaluation:
    """Samples `images_per_prompt` images of every prompt and judges them.

    Args:
        model: the generator; put into evaluation mode and back, if it has modes.
        prompts: P prompts with their GenEval records.
        detect: images (N, h, w, 3) uint8 to one {class: detections} per image.
        protocol: how to sample.
        progress: called with the images done and the images in all.
        keep_images: also keep the pixels.

    Raises:
        PromptError: there is no prompt, or one has no usable record.
    """
    _check(prompts)
    group = protocol.images_per_prompt
    per_call = max(
        1, protocol.batch_size // group
    )  # whole groups; sample_rollout splits one that is too large
    records: list[dict[str, Any]] = []
    disagreement: list[float | None] = []
    kept = []
    with _evaluation_mode(model):
        for first in range(0, len(prompts), per_call):
            part = prompts[first : first + per_call]
            rollout = sample_rollout(
                model,
                part,
                group_size=group,
                cfg_scale=protocol.cfg_scale,
                temperature=protocol.temperature,
                top_k=protocol.top_k,
                top_p=protocol.top_p,
                seed=derive_seed(EVALUATION_DOMAIN, protocol.seed),
                batch_size=protocol.batch_size,
                first_sample=first * group,
                negative_branch=False,
            )
            tokens = rollout.tokens.cpu().numpy().reshape(len(part), group, -1)
            disagreement += token_disagreement(tokens)
            pixels = to_uint8(rollout.images)
            found = detect(pixels)
            assert len(found) == len(pixels), (len(found), len(pixels))
            records += [
                _record(part[i // group], found[i], first + i // group, i % group)
                for i in range(len(found))
            ]
            kept += [pixels] if keep_images else []
            if progress:
                progress(len(records), len(prompts) * group)
    images = np.concatenate(kept) if keep_images else None
    return Evaluation(protocol, [p.negative for p in prompts], disagreement, records, images)


def paired(before: Evaluation, after: Evaluation) -> dict[str, dict[str, float]]:
    """What changed between two evaluations of the same prompts under the same noise.

    Returns:
        for every task and for "overall", the mean over tasks: before and after (fractions of correct images), change
        = after - before, low and high: its 95% interval, by bootstrap over prompts of the per-prompt differences.

    Raises:
        UserError: prompts, seed or protocol (save for the batch size) differ.
    """
    theirs = after.protocol.to_dict()
    for key, value in before.protocol.to_dict().items():
        if key != "batch_size" and value != theirs[key]:
            raise UserError(
                f"these evaluations cannot be paired: {key} is {value} before and {theirs[key]}"
                " after; evaluate both under one protocol"
            )
    _same_prompts(before, after)
    tags = before.tags()
    first, second = (e.column("correct").mean(1) for e in (before, after))
    means = [task_means(by_task(tags, values)) for values in (first, second)]
    return {
        task: {
            "before": means[0][task],
            "after": means[1][task],
            "change": change,
            "low": low,
            "high": high,
        }
        for task, (change, low, high) in task_intervals(by_task(tags, second - first)).items()
    }


def grid_table(
    model: ImageTokenModel,
    prompts: Sequence[Prompt],
    detect: Detect,
    *,
    cfg_scales: Sequence[float],
    temperatures: Sequence[float],
    protocol: Protocol,
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """The overall score under every pair of guidance scale and temperature, all under the same noise.

    Args:
        protocol: everything else; its own scale and temperature are not used.
        progress: called with the cells done and the cells in all.

    Returns:
        one dict per cell, scale by scale: cfg_scale, temperature, overall, low, high.
    """
    cells = [
        replace(protocol, cfg_scale=scale, temperature=temperature)
        for scale in cfg_scales
        for temperature in temperatures
    ]
    if not cells:
        raise UserError("cfg_scales, temperatures: at least one of each is needed")
    table = []
    for done, cell in enumerate(cells, 1):
        overall = evaluate(model, prompts, detect, cell).summary()["overall"]
        scores = {"overall": overall["correct"], "low": overall["low"], "high": overall["high"]}
        table.append({"cfg_scale": cell.cfg_scale, "temperature": cell.temperature, **scores})
        if progress:
            progress(done, len(cells))
    return table


# Parts ------------------------------------------------------------------------------------------------------------


def _check(prompts: Sequence[Prompt]) -> None:
    if not prompts:
        raise PromptError("prompts: the set is empty, at least one prompt is needed")
    for prompt in prompts:
        where = f"prompt {prompt.text!r}"
        if prompt.spec is None:
            raise PromptError(f"{where}: no spec; an evaluation needs a GenEval record")
        validate_spec(prompt.spec, where=where)


@contextmanager
def _evaluation_mode(model: Any) -> Iterator[None]:
    """Dropout and the like off, and every module's own mode back afterwards."""
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def _record(
    prompt: Prompt, found: Mapping[str, Sequence[Detection]], prompt_index: int, sample_index: int
) -> dict[str, Any]:
    assert prompt.spec is not None
    verdict = judge(found, prompt.spec)
    return {
        "filename": f"{prompt_index:05d}/samples/{sample_index:05d}.png",
        "tag": prompt.spec["tag"],
        "prompt": prompt.text,
        "correct": verdict.correct,
        "reason": verdict.reason,
        # GenEval's own summary counts distinct texts here as prompts
        "metadata": json.dumps({**prompt.spec, "prompt": prompt.text}),
        "details": json.dumps(
            {name: [[*one.box, one.confidence] for one in every] for name, every in found.items()}
        ),
        "score": verdict.score,
        "prompt_index": prompt_index,
        "sample_index": sample_index,
    }


def _same_prompts(before: Evaluation, after: Evaluation) -> None:
    group = before.protocol.images_per_prompt
    if len(before.negatives) != len(after.negatives):
        raise UserError(
            f"these evaluations cannot be paired: {len(before.negatives)} prompts before and"
            f" {len(after.negatives)} after; evaluate both on one prompt set"
        )
    for p, negatives in enumerate(zip(before.negatives, after.negatives, strict=True)):
        first, second = (json.loads(e.records[p * group]["metadata"]) for e in (before, after))
        if first != second or negatives[0] != negatives[1]:
            raise UserError(
                f"these evaluations cannot be paired: prompt {p} ({first['prompt']!r} before,"
                f" {second['prompt']!r} after) differs in its text, negative or record"
            )


def _digest(records: Sequence[Mapping[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(records, sort_keys=True).encode()).hexdigest()


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
