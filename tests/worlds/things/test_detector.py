"""The detector of the things, and what it learns from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from t2i_credit.errors import ModelError
from t2i_credit.geneval import judge
from t2i_credit.prompts.records import TASKS
from t2i_credit.worlds.pretrain.judge import JudgePlan, _break, _example, train_judge
from t2i_credit.worlds.things import detector, grammar
from t2i_credit.worlds.things.detector import CELL, NAMES, Network, classes, detect, detect_with
from t2i_credit.worlds.things.drawings import CLASSES
from t2i_credit.worlds.things.scene import SIZE, Object, Scene, render

WEIGHTS = pytest.mark.weights("t2i_credit/worlds/things/judge")


def scenes(task: str, count: int, seed: int) -> list[tuple[dict[str, Any], Scene]]:
    rng = np.random.default_rng([seed, TASKS.index(task)])
    records = [grammar.GRAMMAR.sample_record(rng, [task]) for _ in range(count)]
    return [(record, grammar.draw(record, rng)) for record in records]


class Tells(Network):
    """Says what it is told, in place of layers."""

    def __init__(self, **says: torch.Tensor) -> None:
        super().__init__(fine=8, coarse=8)
        self.says = says

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.says


def told(*objects: tuple[int, int, str, str | None, tuple[float, ...]]) -> Tells:
    """Of one image: (row, column, class, colour, box from the cell's middle)."""
    g = SIZE // CELL
    says = {
        "centre": torch.full((1, g, g), -9.0),
        "kind": torch.zeros(1, g, g, len(CLASSES)),
        "color": torch.zeros(1, g, g, len(NAMES)),
        "box": torch.ones(1, g, g, 4),
        "mask": torch.full((1, SIZE, SIZE), 1.0),
    }
    for row, col, name, color, box in objects:
        says["centre"][0, row, col] = 9.0
        says["kind"][0, row, col, CLASSES.index(name)] = 20.0
        says["color"][0, row, col, NAMES.index(color)] = 20.0
        says["box"][0, row, col] = torch.tensor(box)
    return Tells(**says)


def test_a_box_is_left_top_right_and_bottom_of_the_middle_of_its_cell() -> None:
    network = told((2, 5, "dog", "red", (1.0, 0.5, 2.0, 1.5)))
    ((name, (one,)),) = detect_with(network, np.zeros((1, SIZE, SIZE, 3)), masks=True)[0].items()
    # the middle of column 5 is 44, of row 2 it is 20
    assert name == "dog" and one.box == (36.0, 16.0, 60.0, 32.0) and one.color == "red"
    assert one.confidence > 0.99 and one.mask is not None
    rows, cols = np.nonzero(one.mask)
    assert (cols.min(), cols.max(), rows.min(), rows.max()) == (35, 60, 15, 32)


def test_of_neighbouring_cells_one_is_an_object_and_no_colour_is_none() -> None:
    network = told((2, 5, "dog", None, (1.0,) * 4), (7, 5, "cat", "blue", (1.0,) * 4))
    network.says["centre"][0, 3, 5] = 5.0
    found = detect_with(network, np.zeros((1, SIZE, SIZE, 3)))[0]
    assert {name: [d.color for d in ones] for name, ones in found.items()} == {
        "dog": [None],
        "cat": ["blue"],
    }


def test_an_image_of_another_size_has_boxes_and_masks_in_its_own_pixels() -> None:
    network = told((2, 5, "dog", "red", (1.0, 0.5, 2.0, 1.5)))
    (one,) = detect_with(network, np.zeros((1, 48, 192, 3)), masks=True)[0]["dog"]
    assert one.box == (72.0, 8.0, 120.0, 16.0)
    assert one.mask is not None and one.mask.shape == (48, 192)


def test_the_network_is_told_where_every_whole_object_is_and_no_broken_one() -> None:
    rng = np.random.default_rng(3)
    image, whole = _example(JudgePlan(broken_share=0.0, crowded_share=1.0), rng)
    assert image.shape == (SIZE, SIZE, 3) and int((whole["centre"] == 1).sum()) == 6
    _, broken = _example(JudgePlan(broken_share=1.0, crowded_share=1.0), rng)
    assert not (broken["centre"] == 1).any() and broken["mask"].any()


def test_breaking_changes_an_object_and_nothing_around_it() -> None:
    rng = np.random.default_rng(0)
    one = Object(3, "red", 20, 30, 40)
    scene = Scene((one,), 2)
    before, _ = render(scene)
    x0, y0, x1, y1 = one.box
    for _ in range(12):
        image = before.copy()
        _break(image, one, scene, rng)
        changed = (image != before).any(-1)
        assert changed.sum() > 40
        changed[y0:y1, x0:x1] = False
        assert not changed.any()


def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one(tmp_path) -> None:
    class Killed(Exception):
        pass

    class Copies:
        """In place of a generator: draws again what it is given, until it is killed."""

        def __init__(self, kill_at: int | None) -> None:
            self.kill_at, self.calls = kill_at, 0

        def encode(self, images: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls == self.kill_at:
                raise Killed
            return images

        def decode(self, tokens: torch.Tensor) -> torch.Tensor:
            return tokens

    def train(folder, kill_at=None):
        plan = JudgePlan(steps=3, batch=2, checkpoint_every=1)
        return train_judge(Copies(kill_at), folder, plan, lambda *_: None).state_dict()

    whole = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "cut", kill_at=3)
    again = train(tmp_path / "cut")
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name


@WEIGHTS
@pytest.mark.parametrize("task", TASKS)
def test_rendered_scenes_are_judged_right(task: str) -> None:
    drawn = scenes(task, 60, seed=5)
    found = detect(np.stack([render(scene)[0] for _, scene in drawn]))
    right = [judge(f, r).correct for f, (r, _) in zip(found, drawn, strict=True)]
    # at least 0.98 of 300 on the card: of 60 three wrong ones happen in one run of thirty
    assert np.mean(right) >= 0.93, [
        r["prompt"] for ok, (r, _) in zip(right, drawn, strict=True) if not ok
    ]


@WEIGHTS
def test_masks_lie_on_the_things() -> None:
    overlaps = []
    for _, scene in scenes("two_object", 20, seed=6):
        image, masks = render(scene)
        found = detect(image[None], masks=True)[0]
        for obj, mask in zip(scene.objects, masks, strict=True):
            for one in found.get(obj.name, []):
                assert one.mask is not None
                overlaps.append((one.mask & mask).sum() / (one.mask | mask).sum())
    assert len(overlaps) > 30 and np.mean(overlaps) > 0.8


@WEIGHTS
def test_ground_alone_and_noise_hold_no_thing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3)).astype(np.uint8)
    grounds = np.stack(
        [render(Scene((), n, shaded))[0] for n in range(6) for shaded in (False, True)]
    )
    for found in detect(np.concatenate([grounds, noise])):
        assert not [d for ones in found.values() for d in ones if d.confidence > 0.3]


def test_missing_weights_are_one_line_with_the_command(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(detector, "WEIGHTS", tmp_path / "detector.safetensors")
    detector._network.cache_clear()
    with pytest.raises(ModelError, match="missing; t2i-credit pretrain things --only judge"):
        detect(np.zeros((1, SIZE, SIZE, 3)))


def test_the_detector_knows_the_classes_of_the_world() -> None:
    assert classes() == CLASSES
