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
from ...run_folder.writer import RunWriter, write_evaluation
from ...text.models import load_text, run_of_text
from ...text.sampling import LONGEST, Done, complete, unheard
from ...worlds.arithmetic.chains import Verdict, judge
from ...worlds.arithmetic.problems import SPLITS, dataset
from ...worlds.arithmetic.questions import read
from ..intervals import bootstrap_interval
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


def score(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    samples: int = 8,
    temperature: float = 1.0,
    seed: int = 0,
    batch: int = 256,
    done: Done = unheard,
) -> dict[str, Any]:
    """Exact-answer accuracy with 95% intervals over problems.

    Args:
        model, tokenizer, temperature, seed, batch, done: see `text_sampling.continued`.
        prompts: of the problems, positive or negative.
        samples: G, completions of each problem.

    Returns:
        problems, samples, and for "overall" and each number of steps: problems, correct and pass_at_k (the share of
        problems with a right answer among the G), each [mean, low, high]; kinds: the share of completions of each
        kind of KINDS.
    """
    repeated = [prompt for prompt in prompts for _ in range(samples)]
    texts = complete(
        model,
        tokenizer,
        repeated,
        max_new_tokens=LONGEST,
        temperature=temperature,
        seed=seed,
        batch=batch,
        done=done,
    )
    return counted(prompts, list(map(judge, repeated, texts)))


def counted(prompts: Sequence[str], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The result of `score` for P problems and verdicts on P x G completions, those of one problem beside each other."""
    samples = len(verdicts) // len(prompts)
    correct = np.array([v.correct for v in verdicts], dtype=np.float64).reshape(-1, samples)
    steps = np.array(steps_of(prompts))
    found = {"overall": _row(correct)}
    for count in sorted(set(steps.tolist())):
        found[f"{count} steps"] = _row(correct[steps == count])
    return {
        "problems": len(prompts),
        "samples": samples,
        "by_steps": found,
        "kinds": kind_shares(verdicts),
    }


def steps_of(prompts: Sequence[str]) -> list[int]:
    """How many steps each problem takes."""
    return [len(read(prompt).operators) for prompt in prompts]


def _row(correct: NDArray[np.float64]) -> dict[str, Any]:
    """(P, G) of 0 and 1 to a row of the table."""
    return {
        "problems": len(correct),
        "correct": bootstrap_interval(correct.mean(1)),
        "pass_at_k": bootstrap_interval(correct.max(1)),
    }


def kind_shares(verdicts: Sequence[Verdict]) -> Mapping[str, float]:
    """The share of each kind of completion."""
    counts = Counter(verdict.kind for verdict in verdicts)
    return {kind: counts[kind] / len(verdicts) for kind in KINDS}
