"""The official GenEval summary of verdicts. Holds no test."""

from __future__ import annotations

from collections.abc import Sequence

from t2i_credit.prompts.records import TASKS


def summarize(results: Sequence[tuple[str, bool]]) -> dict[str, float]:
    """The official summary: the fraction of correct images of each task, and their mean."""
    verdicts: dict[str, list[bool]] = {}
    for task, correct in results:
        verdicts.setdefault(task, []).append(bool(correct))
    order = dict.fromkeys([task for task in TASKS if task in verdicts] + list(verdicts))
    scores = {task: sum(verdicts[task]) / len(verdicts[task]) for task in order}
    return {**scores, "overall": sum(scores.values()) / len(scores)}
