"""The GenEval reward over any detector: verdicts, colours, which classes are looked for, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_detectors
import torch
from half_detector import asked
from torch import Tensor

from t2i_credit.api.objects import load_detector
from t2i_credit.api.parts import build_reward
from t2i_credit.config.schema import parse_config
from t2i_credit.errors import ConfigError, ModelError, PromptError
from t2i_credit.geneval import judge
from t2i_credit.interfaces import Prompt
from t2i_credit.rewards.colors import COLORS, masked_crop
from t2i_credit.rewards.geneval import geneval
from t2i_credit.rollout.images import from_uint8
from t2i_credit.worlds.shapes.grammar import prompt_set
from t2i_credit.worlds.shapes.scene import Object, Scene, render

HALVES = "half_detector:halves"


def record(*clauses: dict[str, Any], tag: str = "colors") -> Prompt:
    return Prompt("a prompt", spec={"tag": tag, "include": list(clauses)})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_detectors.write_clip(tmp_path_factory.mktemp("reward") / "clip")


def drawn(*objects: Object) -> Tensor:
    return from_uint8([render(Scene(objects))[0]])


def test_the_shapes_reward_is_the_verdict_on_a_drawn_scene() -> None:
    image = drawn(Object("circle", "red", 14, 24, 8), Object("square", "blue", 34, 24, 8))
    both = {"class": "circle", "count": 1, "color": "red"}, {"class": "square", "count": 1}
    wrong = {"class": "circle", "count": 1, "color": "blue"}, {"class": "square", "count": 1}
    prompts = [record(*both), record(*wrong)]
    images = image.expand(2, -1, -1, -1)
    assert geneval()(images, prompts).tolist() == [1.0, 0.0]
    # count of the circle and of the square hold, the colour does not
    assert geneval(partial=True)(images, prompts).tolist() == pytest.approx([1.0, 2 / 3])


def test_a_detector_of_ones_own_is_asked_for_the_classes_of_each_prompt() -> None:
    asked.clear()
    reward = build_reward(parse_config({"reward": {"geneval": {"detector": HALVES}}}))
    cat, dog = {"class": "cat", "count": 1}, {"class": "dog", "count": 1}
    left = {**cat, "position": ["left of", 0]}
    without = Prompt("no dog", spec={"tag": "x", "include": [cat], "exclude": [dog]})
    prompts = [record(dog, left, tag="position"), without, record(cat, cat, tag="position")]
    total, parts = reward(torch.rand(3, 3, 8, 12), prompts)
    assert asked == [["dog", "cat"], ["cat", "dog"], ["cat"]]
    assert total.tolist() == parts["geneval"].tolist() == [1.0, 0.0, 1.0]


def test_thresholds_are_those_of_the_configuration() -> None:
    images, two = torch.rand(1, 3, 8, 12), [record({"class": "dog", "count": 2}, tag="two_object")]
    counted = [record({"class": "cat", "count": 1}, tag="counting")]
    assert geneval(detector=HALVES)(images, two).tolist() == [1.0]
    assert geneval(detector=HALVES, threshold=0.45)(images, two).tolist() == [0.0]
    assert geneval(detector=HALVES)(images, counted).tolist() == [1.0]
    assert geneval(detector=HALVES, counting_threshold=0.96)(images, counted).tolist() == [0.0]


def test_clip_names_the_colours_of_just_those_objects_that_a_record_asks_for(clip: Path) -> None:
    reward = geneval(detector=HALVES, color_model=f"local-dir:{clip}")
    images = torch.rand(2, 3, 8, 12)
    specs = [
        {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}]},
        {
            "tag": "colors",
            "include": [{"class": "cat", "count": 2, "color": "red"}],
        },  # only one is there
    ]
    found = reward.find(images, specs)
    (dog, small), (cat,) = found[0]["dog"], found[0]["cat"]
    assert (small.color, cat.color) == (None, None)
    assert all(d.color is None for objects in found[1].values() for d in objects)
    pixels = (images[0] * 255).round().byte().permute(1, 2, 0).numpy()
    classifier = reward.load_classifier()
    assert [dog.color] == classifier([masked_crop(pixels, dog.box, None)], ["dog"])
    right, wrong = (
        {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": color}]}
        for color in (dog.color, next(c for c in COLORS if c != dog.color))
    )
    same = images[:1].expand(2, -1, -1, -1)
    assert reward(same, [Prompt("a", spec=right), Prompt("b", spec=wrong)]).tolist() == [1.0, 0.0]


def test_mask2former_and_clip_are_a_reward_of_the_configuration(clip: Path, tmp_path: Path) -> None:
    folder = tiny_detectors.write_mask2former(tmp_path / "m", only=0)
    section = {
        "detector": "mask2former",
        "model": str(folder),
        "color_model": f"local-dir:{clip}",
        "partial": True,
        "batch_size": 2,
        "device": "cpu",
    }
    whole = build_reward(parse_config({"reward": {"geneval": section}}))
    prompts = [
        record({"class": "person", "count": 1, "color": color}, {"class": "cat", "count": 1})
        for color in COLORS[:3]
    ]
    whole.check(prompts)
    images = torch.rand(1, 3, 32, 48).expand(3, -1, -1, -1)
    total, _ = whole(images, prompts)
    _, reward = whole.parts["geneval"]
    specs = [dict(p.spec or {}) for p in prompts]
    found = reward.find(images, specs)
    assert total.tolist() == pytest.approx(
        [judge(f, s).score for f, s in zip(found, specs, strict=True)]
    )
    # persons are seen on every image, cats on none: one check of three, and the colour's
    assert all(round(3 * value) in (1, 2) for value in total.tolist())


def test_an_evaluation_sees_what_the_reward_sees(clip: Path, tmp_path: Path) -> None:
    folder = str(tiny_detectors.write_mask2former(tmp_path / "m", only=0))
    detect, check = load_detector(f"mask2former@{folder}", color_model=f"local-dir:{clip}")
    with pytest.raises(PromptError, match="unknown class 'circle'"):
        check([record({"class": "circle", "count": 1})])
    spec = {"tag": "colors", "include": [{"class": "person", "count": 1, "color": "red"}]}
    pixels = torch.randint(0, 256, (2, 32, 48, 3)).byte().numpy()
    found = detect(pixels, [spec] * 2)
    reward = geneval(detector="mask2former", model=folder, color_model=f"local-dir:{clip}")
    assert found == reward.find(from_uint8(pixels), [spec] * 2)
    assert all(max(f["person"], key=lambda d: d.confidence).color in COLORS for f in found)
    with pytest.raises(ConfigError, match=r"detector\.modle.*did you mean detector\.model"):
        load_detector("mask2former", modle=folder)


# What is refused --------------------------------------------------------------------------------------------------


def test_prompts_that_cannot_be_judged_are_refused_before_training() -> None:
    reward = geneval()
    shapes = prompt_set("train", None)[:3]
    reward.check(shapes)
    cases = {
        "no spec; the geneval reward needs": Prompt("a red circle"),
        "unknown class 'cirle'.*did you mean 'circle'": record({"class": "cirle", "count": 1}),
        "unknown color 'teal' .allowed: red": record(
            {"class": "circle", "count": 1, "color": "teal"}
        ),
    }
    for problem, prompt in cases.items():
        with pytest.raises(PromptError, match=problem):
            reward.check([*shapes, prompt])


def test_a_missing_clip_is_told_before_training_and_only_if_colours_are_asked_for(
    tmp_path: Path,
) -> None:
    reward = geneval(detector=HALVES, color_model=f"local-dir:{tmp_path / 'nothing'}")
    reward.check([record({"class": "cat", "count": 1}, tag="single_object")])
    with pytest.raises(ModelError, match=r"geneval, colours: .*open_clip_config\.json: missing"):
        reward.check([record({"class": "cat", "count": 1, "color": "red"})])


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"detector": "mask2fromer"}, r"geneval\.detector.*did you mean mask2former"),
        ({"detector": "no_module:fn"}, r"geneval\.detector.*cannot be imported"),
        ({"detector": "shapes", "model": "x"}, "the shapes detector takes no weights"),
        ({"threshold": 1.5}, r"reward\.geneval\.threshold.*less than or equal to 1"),
        ({"batch_size": 0}, r"reward\.geneval\.batch_size"),
        ({"colors": "x"}, r"reward\.geneval\.colors.*unknown key"),
    ],
)
def test_a_wrong_configuration_of_the_reward_is_one_line(
    section: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        build_reward(parse_config({"reward": {"geneval": section}}))
