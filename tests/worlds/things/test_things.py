"""The world of things: its drawings, their colours, and what is drawn of them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from t2i_credit.prompts.generate import COLORS as OFFICIAL_COLORS
from t2i_credit.prompts.records import COCO_NAMES
from t2i_credit.worlds.things import grammar
from t2i_credit.worlds.things.drawings import CLASSES, COLORS, DRAWINGS, PACKED, SIDE, sprite
from t2i_credit.worlds.things.mistakes import CONFUSIONS
from t2i_credit.worlds.things.scene import SIZE, Object, Scene, render


def test_classes_and_colours_are_those_of_geneval() -> None:
    assert set(CLASSES) <= set(COCO_NAMES) and len(CLASSES) >= 45
    assert set(COLORS) == set(OFFICIAL_COLORS)


def test_the_packed_file_names_its_licence_and_its_origin() -> None:
    with Image.open(PACKED) as packed:
        about = packed.info
    assert "Apache License 2.0" in about["Copyright"] and "noto-emoji" in about["Source"]
    assert about["Description"].split(", ") == [one.icon for one in DRAWINGS]


def test_a_drawing_in_its_own_colour_is_the_drawing_itself() -> None:
    owned = [i for i, one in enumerate(DRAWINGS) if one.own]
    assert owned
    for index in owned:
        assert np.array_equal(sprite(index, None), sprite(index, DRAWINGS[index].own))


def test_a_tinted_drawing_keeps_its_outline_and_mostly_has_its_colour() -> None:
    for index, one in enumerate(DRAWINGS):
        plain = sprite(index, None)
        for color, rgb in COLORS.items():
            tinted = sprite(index, color)
            assert tinted.shape == (SIDE, SIDE, 4) and np.array_equal(tinted[..., 3], plain[..., 3])
            if color == one.own:
                continue
            seen = tinted[tinted[..., 3] > 0.99][:, :3] * 255
            middle = np.median(seen, axis=0)
            assert np.abs(middle - np.asarray(rgb)).max() < 70, (one.icon, color, middle)


def test_each_class_has_one_held_out_colour_which_no_drawing_of_it_has() -> None:
    held = dict(pair[::-1] for pair in grammar.GRAMMAR.held_out_pairs)
    assert set(held) == set(CLASSES) and len(grammar.GRAMMAR.held_out_pairs) == len(CLASSES)
    assert set(held.values()) == set(COLORS)
    for one in DRAWINGS:
        assert held[one.name] != one.own


def test_every_word_that_a_picture_can_be_wrong_about_has_a_confusion() -> None:
    assert set(CONFUSIONS) >= {*CLASSES, *COLORS}
    for word, (shown, share) in CONFUSIONS.items():
        assert shown != word and 0 < share < 1 and shown in CONFUSIONS


def test_a_mirrored_thing_is_the_mirror_image_and_a_turned_one_covers_its_box() -> None:
    for angle in (0, 6):
        one = Object(3, "red", 20, 30, 40, angle)
        x0, _, x1, _ = one.box
        other = Object(3, "red", SIZE - x1, 30, 40, angle, True)
        image, masks = render(Scene((one,)))
        mirrored, _ = render(Scene((other,)))
        assert np.array_equal(image, mirrored[:, ::-1])
        cols = np.nonzero(masks[0])[1]
        assert abs(cols.min() - x0) <= 1 and abs(cols.max() + 1 - x1) <= 1


def test_a_later_thing_hides_an_earlier_one_and_takes_its_mask() -> None:
    back, front = Object(1, "red", 20, 20, 40), Object(1, "blue", 24, 24, 40)
    _, alone = render(Scene((back,)))
    _, masks = render(Scene((back, front)))
    assert not (masks[0] & masks[1]).any() and masks[0].sum() < alone[0].sum()


def test_crowds_hold_six_things_and_nothing_held_out() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scene = grammar.crowd(rng)
        assert len(scene.objects) == 6
        assert not {(o.shown, o.name) for o in scene.objects} & grammar.GRAMMAR.held_out_pairs
        _, masks = render(scene)
        assert all(mask.any() for mask in masks)
