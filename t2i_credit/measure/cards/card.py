"""What the model cards of the embedded models have in common. Measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...run_folder.atomic import write_atomic, write_json

Progress = Callable[[str, int, int, Mapping[str, float]], None]  # stage, done, of, latest values


def card(front: Mapping[str, str], title: str, *, about: str, made: str, scores: list[str]) -> str:
    """A model card in Markdown.

    Args:
        front: what a hub reads besides the license: library_name, pipeline_tag.
        title, about: what the card is of.
        made: the section on how it was made, with its heading.
        scores: paragraphs and tables.
    """
    lines = ["---", "license: apache-2.0", *(f"{k}: {v}" for k, v in front.items()), "---"]
    head = "\n".join([*lines, f"# {title}"])
    end = "Figures as data: scores.json beside this file.\n"
    return "\n\n".join([head, about, made, "## Scores", *scores, end])


def write_card(folder: Path, scores: Mapping[str, Any], text: str) -> None:
    """Writes scores.json and README.md beside what they are about."""
    write_json(folder / "scores.json", scores)
    write_atomic(folder / "README.md", text.encode())
