"""Scenes of every task, drawn once for the tests of the shapes world."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_shapes import Drawn

from t2i_credit.prompts.records import TASKS
from t2i_credit.worlds.shapes import grammar
from t2i_credit.worlds.shapes.detector import detect
from t2i_credit.worlds.shapes.scene import render

PER_TASK = 300


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[Drawn]]:
    """PER_TASK scenes of every task, with what the detector finds in them."""
    world = {}
    for number, task in enumerate(TASKS):
        rng = np.random.default_rng([7, number])
        specs = [grammar.sample_record(rng, [task]) for _ in range(PER_TASK)]
        scenes = [grammar.draw(spec, rng) for spec in specs]
        images, masks = zip(*map(render, scenes), strict=True)
        found = detect(np.stack(images), masks=True)
        world[task] = list(map(Drawn, specs, scenes, images, masks, found))
    return world
