"""Evaluation of a language model by name: exact answers to problems of its own, with intervals. Trains nothing.

Problems and noise come from seeds that no training uses. Shapes: P problems, G answers of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .arithmetic import dataset
from .arithmetic.chains import Verdict, judge
from .arithmetic.problems import SPLITS
from .arithmetic_scores import LONGEST, counted, steps_of
from .errors import ConfigError
from .evaluate import EVALUATION_DOMAIN
from .judging_names import identity, stamp
from .rollout import derive_seed
from .run_folder import RunWriter, write_evaluation
from .text_runs import load_text, run_of_text
from .text_sampling import Done, complete, unheard
from .truth_statistics import bootstrap_interval

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
    run = run_of_text(model)
    if out is None and run is not None:
        step = "" if run[1] is None else f"-step{run[1]}"
        return found, RunWriter(run[0]).write_evaluation(protocol.name + step, found, after)
    return found, write_evaluation(out or Path("evaluations"), protocol.name, found, after)


def _answers(model: str, protocol: TextProtocol, progress: Done) -> Records:
    """Every answer with its verdict, those of one problem beside each other."""
    loaded, tokenizer = load_text(model)
    seed = derive_seed(EVALUATION_DOMAIN, protocol.seed)
    rows = dataset(protocol.problems, seed, protocol.split)
    prompts = [row["prompt"] for row in rows for _ in range(protocol.answers)]
    texts = complete(
        loaded,
        tokenizer,
        prompts,
        max_new_tokens=LONGEST,
        temperature=protocol.temperature,
        seed=seed,
        done=progress,
    )
    return [
        {"prompt": prompt, "steps": steps, "completion": text, **asdict(judge(prompt, text))}
        for prompt, steps, text in zip(prompts, steps_of(prompts), texts, strict=True)
    ]


def _summary(records: Records, answers: int) -> dict[str, Any]:
    """Scores by number of steps and overall, and the share of each kind of answer."""
    verdicts = [Verdict(r["correct"], r["kind"], tuple(r["wrong"])) for r in records]
    score = counted([record["prompt"] for record in records[::answers]], verdicts)
    overall, *tasks = score["by_steps"].items()
    rows = {}
    for task, row in (*tasks, overall):
        correct, low, high = row["correct"]
        scores = {"correct": correct, "low": low, "high": high, "pass_at_k": row["pass_at_k"][0]}
        rows[task] = {**scores, "prompts": row["problems"], "answers": row["problems"] * answers}
    return {"summary": rows, "kinds": score["kinds"]}


def paired(before: Records, after: Records) -> dict[str, dict[str, float]]:
    """What changed between two models on the same problems: by number of steps and overall, the change of the share of
    right answers with its 95% interval, by bootstrap over problems of the differences."""
    first, second = _shares(before), _shares(after)
    assert first.keys() == second.keys(), "of other problems"
    steps = np.array(steps_of(list(first)))
    one, two = (np.array(list(shares.values())) for shares in (first, second))
    groups = {f"{count} steps": steps == count for count in sorted(set(steps.tolist()))}
    found = {}
    for task, rows in {**groups, "overall": steps > 0}.items():
        change, low, high = bootstrap_interval(two[rows] - one[rows])
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
                "change [95% interval]": f"{row['change']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]",
            }
            for task, row in found["paired"].items()
        ]
    return [
        {
            "problems": task,
            "correct [95% interval]": f"{row['correct']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
            "pass@k": f"{row['pass_at_k']:.3f}",
            "answers": row["answers"],
        }
        for task, row in found["summary"].items()
    ]
