"""Random damage to any file of a run: every reader and tab shows what it did before, or says one line; never a traceback, never
long.

A run folder is small, so each case damages a copy of it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from app_toys import write_rewarded_evaluation, write_toy_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2i_credit.api.export import _scores
from t2i_credit.api.launch import changes
from t2i_credit.app import evaluation, gallery
from t2i_credit.app.runs import RunShelf
from t2i_credit.config.schema import load_config
from t2i_credit.errors import UserError
from t2i_credit.heatmap.files import write_animation, write_heatmaps
from t2i_credit.measure.evaluation.scores import load_evaluation
from t2i_credit.run_folder.reader import RunReader, list_runs
from t2i_credit.run_folder.yaml_text import write_yaml

JUNK: list[Any] = [
    *(None, True, False, 0, -1, 3, 1e308, 10**400, "", "x", "a" * 1000, [], {}, [1], {"a": 1}),
    *("nan", -1.5, [[[]]], "\N{LINE SEPARATOR}", "<script>"),
]
EVALUATIONS = ("train-cfg2", "list-clip-cfg2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_toy_run(tmp_path_factory.mktemp("whole") / "run", steps=(1, 9))
    write_rewarded_evaluation(run)
    (run / "config.yaml").write_text(write_yaml(load_config("shapes/gcpo").model_dump(mode="json")))
    return run


def mutated(draw: Any, value: Any) -> Any:
    """The value with one of its parts replaced, removed or added."""
    if isinstance(value, dict) and value and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(value)))
        found = dict(value)
        action = draw(st.sampled_from(["change", "change", "change", "remove", "add"]))
        if action == "remove":
            del found[key]
        elif action == "add":
            found[draw(st.sampled_from(["new", "samples", "step", "format"]))] = draw(
                st.sampled_from(JUNK)
            )
        else:
            found[key] = mutated(draw, value[key])
        return found
    if isinstance(value, list) and value and draw(st.booleans()):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], mutated(draw, value[place]), *value[place + 1 :]]
    return draw(st.sampled_from(JUNK))


@st.composite
def damage(draw: Any, content: bytes, suffix: str) -> bytes:
    """Other content of a file: cut, overwritten, replaced, or JSON of another shape."""
    kind = draw(st.sampled_from(["json", "json", "json", "cut", "bytes", "junk"]))
    if kind == "json" and suffix in (".json", ".jsonl"):
        lines = content.decode().split("\n") if suffix == ".jsonl" else [content.decode()]
        place = draw(st.integers(0, max(0, sum(map(bool, lines)) - 1)))
        lines[place] = json.dumps(mutated(draw, json.loads(lines[place])))
        return "\n".join(lines).encode()
    if kind == "bytes" and content:
        place = draw(st.integers(0, len(content) - 1))
        return content[:place] + draw(st.binary(max_size=16)) + content[place + 16 :]
    if kind == "junk":
        return draw(st.sampled_from([b"", b"[]", b"null", b"{}", b"\xff\xfe", b"[" * 100_000]))
    return content[: draw(st.integers(0, len(content)))]


def readers(run: Path) -> dict[str, Callable[[], Any]]:
    shelf = RunShelf(run.parent)
    return {
        "list": lambda: list_runs(run.parent),
        "heatmap": lambda: write_heatmaps(run, None, None),
        "film": lambda: write_animation(run),
        "export": lambda: _scores(RunReader(run)),
        "resume": lambda: changes(run, load_config("shapes/gcpo")),
        "metrics": lambda: RunReader(run, strict=False).metrics(),
        **{
            f"load {n}": lambda n=n: load_evaluation(run / f"evaluations/{n}.json")
            for n in EVALUATIONS
        },
        **{f"tab {n}": lambda n=n: evaluation.update(shelf, run.name, n) for n in EVALUATIONS},
        "gallery": lambda: gallery.page_of(shelf, run.name, EVALUATIONS[0], {}),
    }


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_damage_is_one_line_or_nothing(whole: Path, tmp_path: Path, data: Any) -> None:
    shelf = tmp_path / "shelf"
    shutil.rmtree(shelf, ignore_errors=True)
    run = Path(shutil.copytree(whole, shelf / "run"))
    files = sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file())
    file = run / data.draw(st.sampled_from(files))
    file.write_bytes(data.draw(damage(file.read_bytes(), file.suffix)))
    for name, read in readers(run).items():
        began = time.perf_counter()
        try:
            read()
        except UserError as error:
            assert "\n" not in str(error), (name, file)
        assert time.perf_counter() - began < 30, (name, file)
