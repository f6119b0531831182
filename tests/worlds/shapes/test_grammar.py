"""The shapes world's records and their wording, and the compositions that are held out."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from drawn_shapes import Drawn, clause, record, words

from t2i_credit.errors import PromptError
from t2i_credit.geneval import Detection, relative_position
from t2i_credit.prompts.records import RELATIONS, TASKS, caption, validate_spec
from t2i_credit.worlds.shapes import grammar
from t2i_credit.worlds.shapes.mistakes import shown_record
from t2i_credit.worlds.shapes.scene import COLORS, SHAPES

MIRROR = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
WITH_HELD_OUT = ("colors", "position", "color_attr")


def held_out_triple(a: str, relation: str, b: str) -> bool:
    held = grammar.HELD_OUT_TRIPLES
    return (a, relation, b) in held or (b, MIRROR[relation], a) in held


def names_held_out(spec: dict[str, Any]) -> bool:
    """By the records alone: a held-out pair or triple stands in an include clause."""
    found = spec["include"]
    pair = any((c.get("color"), c["class"]) in grammar.HELD_OUT_PAIRS for c in found)
    return pair or any(
        held_out_triple(c["class"], c["position"][0], found[c["position"][1]]["class"])
        for c in found
        if "position" in c
    )


def shows_held_out_relation(boxes: list[tuple[str, Any]]) -> bool:
    return any(
        held_out_triple(a, relation, b)
        for (a, box_a), (b, box_b) in itertools.permutations(boxes, 2)
        for relation in relative_position(box_a, box_b)
    )


def found_boxes(found: dict[str, list[Detection]]) -> list[tuple[str, Any]]:
    """The objects that GenEval's judge counts."""
    return [(name, d.box) for name, ds in found.items() for d in ds if d.confidence > 0.3]


# ---- records and texts


def test_every_task_has_official_records_over_the_shapes() -> None:
    for task in TASKS:
        for spec in grammar.records(task) + grammar.records(task, "heldout"):
            validate_spec(spec, classes=SHAPES)
            assert spec["tag"] == task
            assert (
                {"tag", "include", "prompt"} <= set(spec) <= {"tag", "include", "exclude", "prompt"}
            )
    assert all(grammar.records(task) for task in TASKS)


def test_there_are_at_least_500_distinct_prompts_and_no_two_records_share_a_text() -> None:
    # 10 templates; 5 shapes; 5*4 ordered pairs; 5*4 counts; 5*6 - 5 colours; 20*4 - 2*8 relations;
    # colour pairs: two of the 25 held-in (colour, shape), other shape and other colour, in order.
    # Every shape has 5 held-in colours, so two shapes share 4 (each lacks another one): 20 * (25 - 4) = 420.
    texts = [prompt.text for prompt in grammar.prompt_set()]
    assert len(texts) == len(set(texts)) == 10 * (5 + 20 + 20 + 25 + 64 + 420)
    held_out = [prompt.text for prompt in grammar.prompt_set("heldout")]
    assert len(held_out) == len(set(held_out)) > 500
    assert not set(texts) & set(held_out)


@pytest.mark.parametrize(
    ("text", "task", "include"),
    [
        ("a photo of a circle", "single_object", [clause("circle")]),
        ("a photo of a ring and a cross", "two_object", [clause("ring"), clause("cross")]),
        ("a photo of one ring", "counting", [clause("ring", 1)]),
        ("a photo of three crosses", "counting", [clause("cross", 3)]),
        ("a photo of four triangles", "counting", [clause("triangle", 4)]),
        ("a photo of an orange ring", "colors", [clause("ring", color="orange")]),
        (
            "a photo of a circle left of a square",  # the target comes first in the record
            "position",
            [clause("square"), clause("circle", position=["left of", 0])],
        ),
        (
            "a photo of an orange cross and a red circle",
            "color_attr",
            [clause("cross", color="orange"), clause("circle", color="red")],
        ),
    ],
)
def test_a_text_has_the_wording_of_geneval(text: str, task: str, include: list[Any]) -> None:
    everything = grammar.records(task) + grammar.records(task, "heldout")
    (spec,) = [r for r in everything if r["prompt"] == text]
    assert spec["include"] == include
    more = [clause(include[0]["class"], include[0]["count"] + 1)] if task == "counting" else None
    assert spec.get("exclude") == more


def test_a_template_replaces_only_the_opening_words() -> None:
    spec = record("colors", clause("cross", color="orange"))
    assert caption(spec, "a card with") == "a card with an orange cross"


def test_prompts_are_drawn_from_the_seed_and_carry_their_record() -> None:
    first, again = (grammar.prompt_set(per_task=7, seed=3) for _ in range(2))
    assert first == again != grammar.prompt_set(per_task=7, seed=4)
    assert Counter(p.spec["tag"] for p in first if p.spec) == dict.fromkeys(TASKS, 7)
    assert all(p.spec and p.spec["prompt"] == p.text for p in first)


def test_changing_a_record_changes_no_later_one() -> None:
    grammar.records("colors")[0]["include"][0]["color"] = "grey"
    grammar.sample_record(np.random.default_rng(0), ["colors"])["include"][0]["color"] = "grey"
    assert all(r["include"][0]["color"] in COLORS for r in grammar.records("colors"))


def test_records_are_sampled_evenly_over_the_tasks() -> None:
    rng = np.random.default_rng(0)
    tags = Counter(grammar.sample_record(rng)["tag"] for _ in range(6000))
    # 1000 of each; the standard deviation is sqrt(6000 * 1/6 * 5/6) = 29
    assert all(abs(tags[task] - 1000) < 4 * 29 for task in TASKS)


def test_an_unknown_task_or_split_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(PromptError, match=r"'colour' is not a task; allowed: single_object, "):
        grammar.records("colour")
    with pytest.raises(PromptError, match=r"'test' is not a split; allowed: train, heldout"):
        grammar.records("colors", "test")


# ---- held-out compositions


def test_a_held_out_record_names_a_held_out_composition_and_a_held_in_one_does_not() -> None:
    for task in TASKS:
        assert not any(map(names_held_out, grammar.records(task)))
        assert all(map(names_held_out, grammar.records(task, "heldout")))
        assert bool(grammar.records(task, "heldout")) == (task in WITH_HELD_OUT)


def test_no_held_in_text_says_a_held_out_composition() -> None:
    texts = "\n".join(prompt.text for prompt in grammar.prompt_set())
    assert (
        "purple circle" in texts and "a circle left of a square" in texts
    )  # the search would find them
    for color, shape in grammar.HELD_OUT_PAIRS:
        assert f"{color} {shape}" not in texts
    for a, relation, b in grammar.HELD_OUT_TRIPLES:
        assert f"a {a} {relation} a {b}" not in texts
        assert f"a {b} {MIRROR[relation]} a {a}" not in texts


def test_every_word_occurs_in_held_in_records() -> None:
    seen = set(itertools.chain.from_iterable(words(r) for t in TASKS for r in grammar.records(t)))
    assert seen >= {*SHAPES, *COLORS, *RELATIONS, 1, 2, 3, 4}


def test_no_noisy_caption_hides_a_held_out_composition() -> None:
    rng = np.random.default_rng(1)
    for spec in itertools.chain.from_iterable(grammar.records(task) for task in TASKS):
        for _ in range(3):
            assert not names_held_out(shown_record(spec, rng))


def test_no_scene_shows_a_held_out_composition(drawn: dict[str, list[Drawn]]) -> None:
    rng = np.random.default_rng(2)
    noisy = [grammar.draw(shown_record(grammar.sample_record(rng), rng), rng) for _ in range(3000)]
    clean = [d.scene for group in drawn.values() for d in group]
    for scene in noisy + clean:
        assert not {(o.color, o.shape) for o in scene.objects} & grammar.HELD_OUT_PAIRS
        assert not shows_held_out_relation([(o.shape, o.box) for o in scene.objects])


def test_the_judge_sees_no_held_out_relation(drawn: dict[str, list[Drawn]]) -> None:
    # The detector's boxes are up to a pixel tighter than the objects' own squares: `draw` keeps that
    # margin from every held-out relation.
    for d in (d for group in drawn.values() for d in group):
        assert not shows_held_out_relation(found_boxes(d.found))


def test_the_judge_sees_no_held_out_pair(drawn: dict[str, list[Drawn]]) -> None:
    for task in TASKS:
        for d in drawn[task]:
            pairs = {(o.color, name) for name, objects in d.found.items() for o in objects}
            assert not pairs & grammar.HELD_OUT_PAIRS


def test_a_held_out_record_is_never_drawn() -> None:
    for task in WITH_HELD_OUT:
        for spec in grammar.records(task, "heldout")[:: len(grammar.TEMPLATES)]:
            with pytest.raises(PromptError, match=re.escape(repr(spec["prompt"])) + " is held out"):
                grammar.draw(spec, np.random.default_rng(0))


def test_the_mirror_image_of_a_held_out_triple_is_held_out() -> None:
    mirrored = record("position", clause("circle"), clause("square", position=["below", 0]))
    assert ("circle", "above", "square") in grammar.HELD_OUT_TRIPLES
    assert grammar.is_held_out(mirrored)
    with pytest.raises(PromptError):
        grammar.draw(mirrored, np.random.default_rng(0))
