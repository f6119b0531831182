"""Random damage to any file of a run: every reader and tab shows what it did before, or says one line; never a traceback, never
long.

A run folder is small, so each case damages a copy of it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from app_toys import write_rewarded_evaluation, write_toy_run
from damage import damage
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
from t2i_credit.yaml_text import write_yaml

EVALUATIONS = ("train-cfg2", "list-clip-cfg2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_toy_run(tmp_path_factory.mktemp("whole") / "run", steps=(1, 9))
    write_rewarded_evaluation(run)
    (run / "config.yaml").write_text(write_yaml(load_config("shapes/gcpo").model_dump(mode="json")))
    return run


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
