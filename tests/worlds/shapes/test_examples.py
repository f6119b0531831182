"""Spoiled pictures: strength means what it says."""

import numpy as np
import pytest

from t2i_credit.worlds.shapes import grammar
from t2i_credit.worlds.shapes.examples import SPOILS, soften, spoil
from t2i_credit.worlds.shapes.scene import render


def a_scene(seed=0):
    rng = np.random.default_rng(seed)
    return render(grammar.draw(grammar.sample_record(rng), rng))[0]


@pytest.mark.parametrize("kind", SPOILS)
def test_no_strength_changes_nothing_and_more_changes_more(kind):
    changes = []
    for strength in (0.0, 0.25, 0.5, 1.0):
        found = []
        for seed in range(6):
            image = a_scene(seed)
            before = image.copy()
            spoiled = spoil(image, kind, strength, np.random.default_rng(seed))
            assert spoiled.dtype == np.uint8 and spoiled.shape == image.shape
            assert np.array_equal(image, before)
            found.append(np.abs(spoiled.astype(int) - image).mean())
        changes.append(np.mean(found))
    assert changes[0] == 0
    assert changes == sorted(changes)
    assert changes[3] > 1.5 * changes[1] > 0


@pytest.mark.parametrize("kind", SPOILS)
def test_the_same_generator_spoils_alike(kind):
    image = a_scene()
    one, same, other = (spoil(image, kind, 0.7, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(one, same)
    assert np.array_equal(one, other) == (kind == "blur")  # which has no chance in it


def test_softening_keeps_the_mean_and_shrinks_the_contrast():
    image = a_scene()
    soft = soften(image, 1.0)
    assert abs(soft.mean() - image.mean()) < 0.5
    assert soft.std() < image.std()
    assert np.array_equal(soften(image, 0.0), image)


@pytest.mark.parametrize("kind", SPOILS)
def test_a_picture_need_not_be_square(kind):
    image = np.full((20, 33, 3), 128, np.uint8)
    assert spoil(image, kind, 1.0, np.random.default_rng(0)).shape == (20, 33, 3)
