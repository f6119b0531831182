"""Evaluation of a language model by name: exact answers to problems of its own, scored with intervals. Trains nothing.

Problems and noise come from seeds that no training uses. Shapes: P problems, G answers of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from ...rollout.sampling import EVALUATION_DOMAIN, derive_seed
from ...run_folder.writer import write_evaluation
from ...text.models import load_text, run_of_text
from ...text.sampling import LONGEST, Done, complete, unheard
from ...worlds.arithmetic.chains import judge
from ...worlds.arithmetic.problems import SPLITS, dataset
from ...worlds.arithmetic.questions import read
from ..intervals import change_interval, share_interval, with_interval
from .store import identity, stamp

KINDS = ("right", "slip", "slips", "lost", "malformed")

FORMAT = 1
PROBLEMS, ANSWERS = 300, 8
Records = list[
    dict[str, Any]
]  # one per answer: prompt, steps, completion, and its verdict: correct, kind, wrong


@dataclass(frozen=True, kw_only=True)
class TextProtocol:
    """How a language model is evaluated.

    Attributes:
        split: train (held-in) or heldout.
        problems: P.
        answers: G, the k of pass@k.
        temperature: 0 = always the likeliest token.
        seed: evaluations of one seed have the same problems and can be paired.

    Raises:
        ConfigError: a split that does not exist, or a temperature below 0.
    """

    split: str = "train"
    problems: int = PROBLEMS
    answers: int = ANSWERS
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ConfigError(f"--split: {self.split!r} is not allowed; {' or '.join(SPLITS)}")
        if not self.temperature >= 0:
            raise ConfigError(f"--temperature: {self.temperature} is not allowed; 0 or more")

    @property
    def name(self) -> str:
        """Of the evaluation."""
        size = f"{self.problems}x{self.answers}"
        return f"{self.split}-{size}-t{self.temperature:g}-seed{self.seed}"


def evaluate_text_model(
    model: str,
    protocol: TextProtocol,
    against: str | None = None,
    *,
    out: Path | None = None,
    progress: Done = unheard,
) -> tuple[dict[str, Any], Path]:
    """Samples and judges answers, and writes <name>.json and <name>.jsonl.

    Args:
        model: "arithmetic", a model folder, or a run on text (run@STEP).
        protocol: how.
        against: another such model, which counts as "before".
        out: the folder; None = evaluations/ of the run, or of this folder for what is no run.
        progress: (answers done, of).

    Returns:
        The content of the JSON file: summary has, for each number of steps and "overall" (all problems alike), correct, low
        and high (95%, over problems), pass_at_k, prompts, answers; with `against`, paired has before, after, change, low
        and high. And where it lies.

    Raises:
        UserError: a model cannot be loaded, or the folder cannot be written.
    """
    parts = 1 if against is None else 2
    after = _answers(model, protocol, lambda done, of: progress(done, parts * of))
    found: dict[str, Any] = {
        "format": FORMAT,
        "about": {"model": model, **identity(model), **stamp()},
        "protocol": asdict(protocol),
        **_summary(after, protocol.answers),
    }
    if against is not None:
        before = _answers(against, protocol, lambda done, of: progress(of + done, parts * of))
        found |= {
            "paired": paired(before, after),
            "against": {"model": against, **identity(against)},
        }
    run, step = run_of_text(model), ""
    if out is None and run is not None:
        out, step = run[0] / "evaluations", "" if run[1] is None else f"-step{run[1]}"
    out = out or Path("evaluations")
    return found, write_evaluation(out, protocol.name + step, found, after)


def _answers(model: str, protocol: TextProtocol, progress: Done) -> Records:
    """Every answer with its verdict, those of one problem beside each other."""
    loaded, tokenizer = load_text(model)
    seed = derive_seed(EVALUATION_DOMAIN, protocol.seed)
    prompts = [row["prompt"] for row in dataset(protocol.problems, seed, protocol.split)]
    how: dict[str, Any] = {"temperature": protocol.temperature, "seed": seed, "done": progress}
    return answered(loaded, tokenizer, prompts, samples=protocol.answers, **how)


def answered(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, samples: int, **sampling: Any
) -> Records:
    """G answers to each of P problems with their verdicts; `sampling` is that of `text.sampling.continued`."""
    repeated = [prompt for prompt in prompts for _ in range(samples)]
    texts = complete(model, tokenizer, repeated, max_new_tokens=LONGEST, **sampling)
    return [
        {"prompt": prompt, "steps": steps, "completion": text, **asdict(judge(prompt, text))}
        for prompt, steps, text in zip(repeated, steps_of(repeated), texts, strict=True)
    ]


def _summary(records: Records, answers: int) -> dict[str, Any]:
    """Scores by number of steps and overall, and the share of each kind of answer."""
    summary = {}
    for task, row in counted(records, answers).items():
        scores = dict(zip(("correct", "low", "high"), row["correct"], strict=True))
        scores |= {"pass_at_k": row["pass_at_k"][0], "prompts": row["problems"]}
        summary[task] = {**scores, "answers": row["problems"] * answers}
    return {"summary": summary, "kinds": kind_shares(records)}


def paired(before: Records, after: Records) -> dict[str, dict[str, float]]:
    """What changed between two models on the same problems: by number of steps and overall, the change of the share of
    right answers with its 95% interval over problems, see `change_intervals`."""
    first, second = _shares(before), _shares(after)
    assert first.keys() == second.keys(), "of other problems"
    one, two = (np.array(list(shares.values())) for shares in (first, second))
    found = {}
    for task, rows in _by_steps(list(first)).items():
        change, low, high = change_interval(two[rows] - one[rows])
        means = {"before": float(one[rows].mean()), "after": float(two[rows].mean())}
        found[task] = {**means, "change": change, "low": low, "high": high}
    return found


def _shares(records: Records) -> dict[str, float]:
    """{problem: share of right answers}."""
    found: dict[str, list[bool]] = {}
    for record in records:
        found.setdefault(record["prompt"], []).append(record["correct"])
    return {prompt: float(np.mean(right)) for prompt, right in found.items()}


def score_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per number of steps, for a person."""
    if "paired" in found:
        return [
            {
                "problems": task,
                "before": f"{row['before']:.3f}",
                "after": f"{row['after']:.3f}",
                "change [95% interval]": with_interval(
                    row["change"], row["low"], row["high"], "+.3f"
                ),
            }
            for task, row in found["paired"].items()
        ]
    return [
        {
            "problems": task,
            "correct [95% interval]": with_interval(row["correct"], row["low"], row["high"]),
            "pass@k": f"{row['pass_at_k']:.3f}",
            "answers": row["answers"],
        }
        for task, row in found["summary"].items()
    ]


def score(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, samples: int = 8, **sampling: Any
) -> dict[str, Any]:
    """Exact-answer accuracy with 95% intervals over problems.

    Args:
        model, tokenizer, sampling: see `text.sampling.continued`; the seed is 0 unless given.
        prompts: of the problems, positive or negative.
        samples: G, completions of each problem.

    Returns:
        problems, samples, and for "overall" and each number of steps: problems, correct and pass_at_k (the share of
        problems with a right answer among the G), each [mean, low, high]; kinds: the share of completions of each
        kind of KINDS.
    """
    records = answered(model, tokenizer, prompts, samples=samples, **{"seed": 0, **sampling})
    rows = counted(records, samples)
    return {
        "problems": len(prompts),
        "samples": samples,
        "by_steps": {"overall": rows["overall"], **rows},
        "kinds": kind_shares(records),
    }


def counted(records: Records, samples: int) -> dict[str, dict[str, Any]]:
    """The rows of `score` for each number of steps and, at the end, "overall"."""
    correct = np.array([r["correct"] for r in records], dtype=np.float64).reshape(-1, samples)
    return {
        task: {
            "problems": int(rows.sum()),
            "correct": share_interval(correct[rows].mean(1)),
            "pass_at_k": share_interval(correct[rows].max(1)),
        }
        for task, rows in _by_steps([r["prompt"] for r in records[::samples]]).items()
    }


def steps_of(prompts: Sequence[str]) -> list[int]:
    """How many steps each problem takes."""
    return [len(read(prompt).operators) for prompt in prompts]


def _by_steps(prompts: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """{a number of steps: (P,) the problems that take so many}, and at the end "overall": all of them."""
    steps = np.array(steps_of(prompts))
    groups = {f"{count} steps": steps == count for count in sorted(set(steps.tolist()))}
    return {**groups, "overall": steps >= 0}


def kind_shares(records: Records) -> Mapping[str, float]:
    """The share of each kind of completion."""
    counts = Counter(record["kind"] for record in records)
    return {kind: counts[kind] / len(records) for kind in KINDS}
