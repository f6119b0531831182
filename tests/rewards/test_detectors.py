"""Detectors run on checkpoints in their real layout: names by index, confidences, boxes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_detectors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from t2i_credit.errors import ConfigError, ModelError
from t2i_credit.prompts.records import COCO_NAMES
from t2i_credit.rewards.detection import FLOOR
from t2i_credit.rewards.detectors import DETECTORS
from t2i_credit.rewards.hub_detectors import _named
from t2i_credit.rollout.images import to_uint8

MOUSE = 64  # COCO's index of the class that it calls mouse
CPU = torch.device("cpu")


def built(kind: str, folder: Path, batch_size: int = 2) -> Any:
    return DETECTORS[kind](model=str(folder), device=CPU, batch_size=batch_size)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One checkpoint of each kind."""
    out = tmp_path_factory.mktemp("detectors")
    return {
        "mask2former": tiny_detectors.write_mask2former(out / "mask2former", only=MOUSE),
        "owlv2": tiny_detectors.write_owlv2(out / "owlv2"),
        "grounding_dino": tiny_detectors.write_grounding_dino(out / "grounding_dino"),
    }


@pytest.fixture(scope="module")
def images() -> Tensor:
    """(3, 3, 48, 64): wider than high."""
    return torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(0))


def listed(found: list[dict[str, list[Any]]]) -> list[dict[str, list[float]]]:
    """Confidences and boxes of every image and class, most confident first."""
    return [
        {
            name: [
                v
                for d in sorted(objects, key=lambda d: -d.confidence)
                for v in (d.confidence, *d.box)
            ]
            for name, objects in sorted(image.items())
        }
        for image in found
    ]


# Mask2Former ------------------------------------------------------------------------------------------------------


def test_geneval_has_its_own_names_for_three_of_the_80_coco_classes() -> None:
    assert len(COCO_NAMES) == len(set(COCO_NAMES)) == 80
    assert COCO_NAMES[62:68] == (
        *("tv", "laptop", "computer mouse", "tv remote", "computer keyboard", "cell phone"),
    )
    assert (COCO_NAMES[0], COCO_NAMES[79]) == ("person", "toothbrush")


def test_mask2former_names_classes_by_index_and_boxes_are_the_hulls_of_masks(
    folders: dict[str, Path], images: Tensor
) -> None:
    found = built("mask2former", folders["mask2former"])(images, [["computer mouse", "cat"]] * 3)
    assert [list(image) for image in found] == [["computer mouse"]] * 3
    for image in found:
        for seen in image["computer mouse"]:
            assert seen.mask.shape == (48, 64) and seen.mask.dtype == bool and seen.color is None
            rows, columns = np.nonzero(seen.mask)
            hull = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert seen.box == tuple(map(float, hull))


def test_mask2former_is_confident_as_its_class_and_its_mask_are(
    folders: dict[str, Path], images: Tensor
) -> None:
    detector = built("mask2former", folders["mask2former"])
    inputs = detector.processor(list(to_uint8(images[:1])), return_tensors="pt")
    with torch.no_grad():
        outputs = detector.model(**inputs)
    logits = torch.nn.functional.interpolate(
        outputs.masks_queries_logits, size=(384, 384), mode="bilinear"
    )[0]
    # the class's bias is 12 and 80 others are 0: e^12 / (e^12 + 80)
    certain = np.exp(12) / (np.exp(12) + 80)
    expected = [certain * float(m.sigmoid()[m > 0].mean()) for m in logits if bool((m > 0).any())]
    (image,) = detector(images[:1], [["computer mouse"]])
    confidences = [seen.confidence for seen in image["computer mouse"]]
    assert sorted(confidences) == pytest.approx(
        sorted(expected), abs=2e-6
    )  # the library rounds to 6 digits


def test_a_class_that_is_not_wanted_is_not_reported(
    folders: dict[str, Path], images: Tensor
) -> None:
    found = built("mask2former", folders["mask2former"])(images[:2], [["cat"], ["computer mouse"]])
    assert [list(image) for image in found] == [[], ["computer mouse"]]


# Open vocabulary --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(DETECTORS.keys() - {"shapes", "things"}))
def test_what_is_seen_on_an_image_does_not_depend_on_its_batch(
    kind: str, folders: dict[str, Path], images: Tensor
) -> None:
    wanted = [["computer mouse", "cat"], ["dog"], ["traffic light", "computer mouse", "dog"]]
    together = built(kind, folders[kind], batch_size=3)(images, wanted)
    alone = built(kind, folders[kind], batch_size=1)(images, wanted)
    assert any(together) and all(set(f) <= set(w) for f, w in zip(together, wanted, strict=True))
    for one, other in zip(listed(together), listed(alone), strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name] == pytest.approx(other[name], abs=1e-3)


def assert_found(
    found: dict[str, list[Any]], names: list[str], scores: Tensor, labels: Tensor, boxes: Tensor
) -> None:
    """The most confident object of each class is the best of the raw boxes (centre and size, in pixels) inside 64 x 48."""
    best: dict[str, tuple[float, ...]] = {}
    for score, label, (x, y, w, h) in zip(
        *(t.tolist() for t in (scores, labels, boxes)), strict=True
    ):
        corners = (max(x - w / 2, 0), max(y - h / 2, 0), min(x + w / 2, 64), min(y + h / 2, 48))
        inside = corners[2] - corners[0] >= 1 and corners[3] - corners[1] >= 1
        if inside and score > FLOOR and score > best.get(names[label], (0.0,))[0]:
            best[names[label]] = (score, *corners)
    assert best
    first = {name: max(objects, key=lambda d: d.confidence) for name, objects in found.items()}
    assert first.keys() == best.keys()
    for name, seen in first.items():
        assert (seen.confidence, *seen.box) == pytest.approx(best[name], abs=1e-3)


def test_owlv2_gives_a_patch_to_the_query_that_it_matches_best(
    folders: dict[str, Path], images: Tensor
) -> None:
    detector = built("owlv2", folders["owlv2"])
    names = ["cat", "traffic light"]
    texts = [[f"a photo of a {name}" for name in names]]
    inputs = detector.processor(text=texts, images=list(to_uint8(images[:1])), return_tensors="pt")
    with torch.no_grad():
        outputs = detector.model(**inputs)
    scores, labels = outputs.logits[0].sigmoid().max(-1)  # (16 patches)
    # OWLv2 pads a picture to a square below and on the right: both axes are in units of the longer side
    assert_found(
        detector(images[:1], [names])[0], names, scores, labels, outputs.pred_boxes[0] * 64
    )


def test_grounding_dino_takes_the_best_word_of_a_class(
    folders: dict[str, Path], images: Tensor
) -> None:
    detector = built("grounding_dino", folders["grounding_dino"])
    names = ["computer mouse", "cat"]
    inputs = detector.processor(
        text=[names], images=list(to_uint8(images[:1])), return_tensors="pt"
    )
    words = detector.processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
    assert words == ["[CLS]", "computer", "mouse", ".", "cat", ".", "[SEP]"]
    with torch.no_grad():
        outputs = detector.model(**inputs)
    matches = outputs.logits[0].sigmoid()  # (10 queries, 256 tokens)
    scores, labels = torch.stack([matches[:, 1:3].amax(1), matches[:, 4]], 1).max(1)
    boxes = outputs.pred_boxes[0] * torch.tensor([64, 48, 64, 48])
    assert_found(detector(images[:1], [names])[0], names, scores, labels, boxes)


def test_boxes_of_one_class_that_overlap_by_half_are_one_object() -> None:
    boxes = torch.tensor(
        [
            [0.0, 0.0, 10.0, 10.0],
            [0.0, 0.0, 10.0, 9.0],  # 0.9 of the first: the same object
            [0.0, 0.0, 10.0, 4.0],  # 0.4 of it: another
            [0.0, 0.0, 10.0, 10.0],  # another class
            [40.0, 20.0, 99.0, 99.0],  # reaches out of the picture, 64 wide and 48 high
            [70.0, 50.0, 99.0, 99.0],  # lies outside
            [20.0, 20.0, 30.0, 30.0],  # not confident
        ]
    )
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 0])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.9, FLOOR])
    found = _named(["cat", "dog"], labels, scores, boxes, (48, 64))
    assert listed([found])[0] == {
        "cat": pytest.approx([0.9, 0, 0, 10, 10, 0.7, 0, 0, 10, 4]),
        "dog": pytest.approx([0.6, 0, 0, 10, 10, 0.5, 40, 20, 64, 48]),
    }


# What is refused --------------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_told_with_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no such folder; expected .*hub id.*config\.json"):
        built("mask2former", tmp_path / "nothing")


def test_a_hub_id_that_cannot_be_reached_is_one_line() -> None:
    with pytest.raises(ModelError, match=r"nobody/nothing: cannot be loaded") as caught:
        DETECTORS["owlv2"](model="nobody/nothing", device=CPU, batch_size=1)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_network_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="is a owlv2 model; expected is a Mask2Former"):
        built("mask2former", folders["owlv2"])


def test_a_detector_of_other_classes_is_refused(tmp_path: Path) -> None:
    folder = tiny_detectors.write_mask2former(tmp_path / "m", labels=3)
    with pytest.raises(ModelError, match="has 3 classes; expected are the 80 of COCO"):
        built("mask2former", folder)


def test_damaged_and_incomplete_weights_are_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folders["owlv2"].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    weights = copy / "model.safetensors"
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if "box_head.dense0" not in k}, weights)
    with pytest.raises(ModelError, match=r"2 tensors are missing, box_head\.dense0\.bias first"):
        built("owlv2", copy)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"copy/model.safetensors: damaged: ") as caught:
        built("owlv2", copy)
    assert "\n" not in str(caught.value)
    (copy / "config.json").write_text(json.dumps({"model_type": "owlv2"})[:-5])
    with pytest.raises(ModelError, match="copy: cannot be loaded"):
        built("owlv2", copy)


def test_a_detector_of_ours_takes_no_weights() -> None:
    with pytest.raises(ConfigError, match="the shapes detector takes no weights"):
        DETECTORS["shapes"](model="some/where", device=CPU, batch_size=1)
