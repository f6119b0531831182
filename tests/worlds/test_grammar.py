"""What every embedded world promises: known texts, held-out compositions that are never drawn, whole masks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from t2i_credit.errors import PromptError
from t2i_credit.geneval import Detection, judge, relative_position
from t2i_credit.interfaces import Prompt
from t2i_credit.prompts.records import TASKS, WORLDS, validate_spec
from t2i_credit.worlds.world import World, find_world, known_prompt

SPLITS = ("train", "heldout")


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    return find_world(request.param)


def drawn(world: World, count: int, seed: int = 0) -> list[tuple[dict, object]]:
    """Records with mistakes as often as captions have them, and their scenes."""
    rng = np.random.default_rng(seed)
    shown = [
        world.mistakes.shown_record(world.grammar.sample_record(rng, [task]), rng)
        for task in TASKS
        for _ in range(count)
    ]
    return [(record, world.draw(record, rng)) for record in shown]


def test_every_text_of_a_world_is_known_with_its_record(world: World) -> None:
    for split in SPLITS:
        for prompt in world.grammar.prompt_set(split, per_task=60, seed=2):
            assert world.grammar.known(prompt.text) == prompt
            found = known_prompt(prompt.text)
            assert found is not None and found[0].name == world.name


def test_what_no_world_says_is_known_to_none(world: World) -> None:
    for text in ("", "a photo of", "a photo of a mountain", "a red circle", "a photo of a red"):
        assert world.grammar.known(text) is None
        assert known_prompt(text) is None
    name, other = world.grammar.names[:2]
    a, b = world.grammar.colors[:2]
    for body in (f"a {name} and a {name}", f"a {a} {name} and a {other}", f"five {name}s"):
        assert world.grammar.known(f"a photo of {body}") is None
    assert world.grammar.known(f"a photo of a {a} {name} above a {b} {other}") is None


def test_every_record_is_one_of_the_official_format_and_distinct(world: World) -> None:
    for task, split in itertools.product(TASKS, SPLITS):
        records = world.grammar.records(task, split)
        step = max(1, len(records) // 500)
        texts = [record["prompt"] for record in records[::step]]
        assert len(set(texts)) == len(texts)
        for record in records[::step]:
            validate_spec(record, classes=world.grammar.names)
            assert world.grammar.is_held_out(record) == (split == "heldout")


def test_the_words_of_a_world_are_those_of_its_prompts(world: World) -> None:
    words = set(world.grammar.words())
    for split in SPLITS:
        for prompt in world.grammar.prompt_set(split, per_task=200, seed=9):
            assert set(prompt.text.split()) <= words


def test_no_scene_and_no_noisy_caption_holds_a_held_out_composition(world: World) -> None:
    for record, scene in drawn(world, 60):
        assert not world.grammar.is_held_out(record)
        objects = scene.objects  # type: ignore[attr-defined]
        assert not {(o.shown, o.name) for o in objects} & world.grammar.held_out_pairs
        for a, b in itertools.permutations(objects, 2):
            for relation in relative_position(a.box, b.box):
                assert a.name == b.name or not world.grammar.is_held_out_triple(
                    a.name, relation, b.name
                )


def test_a_scene_fulfils_its_record_and_each_object_has_a_mask_in_its_box(world: World) -> None:
    for record, scene in drawn(world, 25, seed=1):
        objects = scene.objects  # type: ignore[attr-defined]
        found: dict[str, list[Detection]] = {}
        for o in objects:
            found.setdefault(o.name, []).append(Detection(o.box, 1.0, o.shown))
        assert judge(found, record).correct, record["prompt"]
        image, masks = world.render(scene)
        assert image.dtype == np.uint8 and masks.shape == (len(objects), *image.shape[:2])
        assert masks.sum(0).max() == 1  # no pixel belongs to two
        for o, mask in zip(objects, masks, strict=True):
            rows, cols = np.nonzero(mask)
            x0, y0, x1, y1 = o.box
            assert x0 - 1 <= cols.min() and cols.max() <= x1 and y0 - 1 <= rows.min()
            assert rows.max() <= y1 and mask.sum() > 20


def test_a_reference_is_drawn_from_its_seed_and_never_of_a_held_out_prompt(world: World) -> None:
    prompt = world.grammar.prompt_set(per_task=1, seed=3)[-1]
    first, again, other = (world.reference(prompt, seed) for seed in (0, 0, 1))
    assert first is not None and np.array_equal(first, again)
    assert not np.array_equal(first, other)
    held = world.grammar.prompt_set("heldout", ["color_attr"], per_task=1)[0]
    assert world.reference(held, 0) is None and world.reference(Prompt("a mountain"), 0) is None
    with pytest.raises(PromptError, match="is held out; it is never drawn"):
        world.draw(dict(held.spec or {}), np.random.default_rng(0))


def test_unknown_worlds_are_refused_in_one_line() -> None:
    with pytest.raises(PromptError, match="world 'cubes' is not known; known: shapes, things"):
        find_world("cubes")
