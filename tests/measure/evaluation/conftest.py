"""A generator without weights, and its evaluation, for the tests of evaluations."""

from __future__ import annotations

from pathlib import Path

import pytest
from painter import PROMPTS, PROTOCOL, Painter, WideConfig, build

from t2i_credit.measure.evaluation import command
from t2i_credit.measure.evaluation.evaluate import evaluate
from t2i_credit.measure.evaluation.scores import Evaluation
from t2i_credit.worlds.shapes.detector import detect


@pytest.fixture(scope="module")
def painter() -> Painter:
    return build(Painter, WideConfig)


@pytest.fixture
def any_name_is_the_painter(
    painter: Painter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Evaluations by name, in a folder of their own; the tests that load by name are those of the verbs."""
    monkeypatch.setattr("t2i_credit.measure.evaluation.store.load_model", lambda name: painter)
    monkeypatch.setattr(command, "check_model", lambda name: None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def evaluation(painter: Painter) -> Evaluation:
    return evaluate(painter, PROMPTS, detect, PROTOCOL)
