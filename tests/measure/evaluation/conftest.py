"""A generator without weights, and its evaluation, for the tests of evaluations."""

from __future__ import annotations

import pytest
from painter import PROMPTS, PROTOCOL, Painter, WideConfig, build

from t2i_credit.measure.evaluation.evaluate import evaluate
from t2i_credit.measure.evaluation.scores import Evaluation
from t2i_credit.worlds.shapes.detector import detect


@pytest.fixture(scope="module")
def painter() -> Painter:
    return build(Painter, WideConfig)


@pytest.fixture(scope="module")
def evaluation(painter: Painter) -> Evaluation:
    return evaluate(painter, PROMPTS, detect, PROTOCOL)
