"""A truth measurement of text as tables and files: truth.json and truth.md. Measures nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .atomic import make_folder, write_atomic, write_json
from .truth_report import shown
from .truth_text import OUTCOMES

Tables = dict[str, list[dict[str, str]]]

_SPECIFICITY = {
    "auroc": "AUROC of the deciding digits",
    "against_filler": "AUROC against filler words",
    "lift": "credit of a deciding digit, times the mean",
}


def write_text_report(found: Mapping[str, Any], folder: Path, *, model: str) -> None:
    """Writes both files, the JSON last.

    Args:
        found: see `truth_text.truth_of_text`.
        folder: made if it is not there.
        model: what was measured, as the reader calls it.

    Raises:
        RunError: the disk refuses.
    """
    make_folder(folder)
    write_atomic(folder / "truth.md", markdown(found, model).encode())
    write_json(folder / "truth.json", {"model": model, **found})


def tables(found: Mapping[str, Any]) -> Tables:
    """{title: rows}: one row per credit or baseline, 95% intervals in brackets."""
    return {
        **{
            f"specificity, {outcome} answers": [
                {"credit": name} | {title: shown(row[key]) for key, title in _SPECIFICITY.items()}
                for name, row in found["specificity"][outcome]["assigners"].items()
            ]
            for outcome in OUTCOMES
        },
        "causality": [
            {
                "credit": name,
                "effect, highest credit": shown(row["highest"]["all"]),
                "of right answers": shown(row["highest"]["right"]),
                "of wrong answers": shown(row["highest"]["wrong"]),
                "effect, lowest credit": shown(row["lowest"]["all"]),
                "times random": shown(row["ratio"]),
            }
            for name, row in found["causality"]["assigners"].items()
        ],
    }


def about(found: Mapping[str, Any]) -> str:
    """What was measured on how much, in one line."""
    parts = [f"{found['samples']} answers, {found['correct']:.3f} of them right"]
    for outcome in OUTCOMES:
        measured = found["specificity"][outcome]
        share = f"on {measured['share'][0]:.3f} of their tokens" if measured["samples"] else ""
        parts.append(f"a deciding step in {measured['samples']} {outcome} ones {share}".rstrip())
    parts.append(f"{found['causality']['changeable']:.1f} tokens of an answer can be changed")
    return "; ".join(parts) + ". 95% intervals in brackets."


def markdown(found: Mapping[str, Any], model: str) -> str:
    """The tables with a line about how they were measured."""
    lines = [f"# Credit truth of {model}", "", about(found)]
    for title, rows in tables(found).items():
        head = list(rows[0])
        lines += ["", f"## {title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    return "\n".join([*lines, ""])
