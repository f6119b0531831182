"""The floors of the package: a file imports lower floors only, and no imports run in a circle."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from repository import ROOT

# The highest first. What stands on one line imports nothing that stands beside it; the files of one folder may.
FLOORS = """cli
app
measure.comparison measure.cards
measure.bench measure.evaluation measure.truth
measure.intervals
text
api
training rewards
worlds heatmap config
geneval run_folder models credit
prompts rollout advantages losses
interfaces
files yaml_text
errors"""
HEIGHT = {name: -i for i, line in enumerate(FLOORS.split("\n")) for name in line.split()}


def imports(root: Path) -> dict[str, set[str]]:
    """{module: the modules that it imports}, functions and type checkers included; names are those below t2i_credit."""
    folders = [root / "t2i_credit", *(root / name for name in ("models", "rewards", "app"))]
    files = {
        file.relative_to(folders[0] if file.is_relative_to(folders[0]) else root): file
        for folder in folders
        for file in folder.rglob("*.py")
    }
    known = {
        ".".join(p.with_suffix("").parts).removesuffix(".__init__"): f for p, f in files.items()
    }
    found: dict[str, set[str]] = {name: set() for name in known if name != "__init__"}
    for name in found:
        here = name.split(".") if known[name].name == "__init__.py" else name.split(".")[:-1]
        for node in ast.walk(ast.parse(known[name].read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom):
                continue
            base = (node.module or "").split(".")
            if node.level:
                base = here[: len(here) - node.level + 1] + base
            elif base.pop(0) != "t2i_credit":
                continue
            for alias in node.names:
                whole = ".".join([*filter(None, base), alias.name])
                found[name] |= {whole if whole in found else whole.rpartition(".")[0]} - {name, ""}
    return found


def room(module: str) -> str:
    """The part of a floor that a module belongs to."""
    return max((name for name in HEIGHT if f"{module}.".startswith(f"{name}.")), key=len)


def upward(root: Path) -> list[str]:
    """The imports that run up, or to what stands beside."""
    return [
        f"{name} imports {other}"
        for name, others in imports(root).items()
        for other in others
        if "measure" not in (name, other)  # the front of several floors, which is empty
        if room(name) != room(other) and HEIGHT[room(other)] >= HEIGHT[room(name)]
    ]


def circle(root: Path) -> list[str]:
    """The modules of one circle, or none."""
    try:
        TopologicalSorter(imports(root)).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_file_imports_lower_floors_alone_and_none_in_a_circle() -> None:
    assert upward(ROOT) == []
    assert circle(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line", "found"),
    [
        ("t2i_credit/losses.py", "    from .training.trainer import Trainer", "training.trainer"),
        ("t2i_credit/losses.py", "    from .advantages import group_normalized", "advantages"),
        ("models/janus.py", "    from ..api import parts", "api.parts"),
    ],
)
def test_an_import_that_runs_up_or_beside_is_noticed_inside_a_function_too(
    tmp_path: Path, file: str, line: str, found: str
) -> None:
    for name in ("advantages", "training/trainer", "api/parts", "losses"):
        place = tmp_path / "t2i_credit" / f"{name}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(f"def late():\n{line}\n")
    name = Path(file).stem if file.startswith("t2i_credit") else "models.janus"
    assert upward(tmp_path) == [f"{name} imports {found}"]
    (tmp_path / "t2i_credit/advantages.py").write_text("from .losses import late\n")
    assert bool(circle(tmp_path)) == (found == "advantages")
