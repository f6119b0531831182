"""How well a language model calculates: its completions judged and counted. Trains nothing.

Shapes: P problems, G completions of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arithmetic.chains import Verdict, judge
from .arithmetic.questions import read
from .text_sampling import Done, complete, unheard
from .truth_statistics import bootstrap_interval

KINDS = ("right", "slip", "slips", "lost", "malformed")
LONGEST = (
    112  # characters of a completion; the longest chain of four steps with every filler word has 69
)


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
