"""The colour classifier against a direct computation with PIL and open_clip, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import tiny_detectors
import torch

from t2i_credit.errors import ModelError
from t2i_credit.rewards.colors import COLORS, load_color_classifier, masked_crop, needs_quick_gelu

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_detectors.write_clip(tmp_path_factory.mktemp("colors") / "clip")


def test_a_crop_is_grey_outside_the_mask_and_cut_to_the_rounded_box() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (20, 30, 3), np.uint8)  # wider than high
    mask = rng.random((20, 30)) < 0.5
    expected = picture.copy()
    expected[~mask] = 0x99
    crop = np.asarray(masked_crop(picture, (3.4, 2.6, 17.5, 9.2), mask))
    assert np.array_equal(crop, expected[3:9, 3:18])  # 17.5 rounds to the even 18
    plain = np.asarray(masked_crop(picture, (3.4, 2.6, 17.5, 9.2), None))
    assert np.array_equal(plain, picture[3:9, 3:18])


def test_the_crop_of_a_sliver_has_a_pixel() -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    assert masked_crop(picture, (1.5, 4.0, 2.5, 4.2), None).size == (1, 1)


def test_colors_are_those_of_a_direct_zero_shot_classification(folder: Path) -> None:
    classifier = load_color_classifier(f"local-dir:{folder}", None, CPU)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    rng = np.random.default_rng(1)
    crops = []
    for _ in range(20):  # more than one batch
        picture = np.full((24, 40, 3), rng.integers(0, 256, 3), np.uint8)
        picture[4:20, 5:25] = rng.integers(0, 256, 3)
        crops.append(masked_crop(picture, (2, 1, 39, 23), rng.random((24, 40)) < 0.7))
    names = ["car", "computer mouse"] * 10

    heads = {}
    for name in set(names):
        columns = []
        for color in COLORS:
            texts = [
                f"a photo of a {color} {name}",
                f"a photo of a {color}-colored {name}",
                f"a photo of a {color} object",
            ]
            with torch.no_grad():
                rows = model.encode_text(tokenizer(texts))
            mean = (rows / rows.norm(dim=1, keepdim=True)).mean(0)
            columns.append(mean / mean.norm())
        heads[name] = torch.stack(columns, 1)
        torch.testing.assert_close(classifier._head(name), heads[name], atol=1e-6, rtol=0)
    expected = []
    for crop, name in zip(crops, names, strict=True):
        with torch.no_grad():
            feature = model.encode_image(preprocess(crop)[None])[0]
        expected.append(COLORS[int((feature @ heads[name]).argmax())])
    assert len(set(expected)) > 1
    assert classifier(crops, names) == expected


def test_openais_weights_get_the_activation_that_they_were_trained_with() -> None:
    assert needs_quick_gelu("ViT-L-14", "openai")  # of the architecture's own, open_clip only warns
    assert not needs_quick_gelu("ViT-L-14", "laion2b_s32b_b82k")
    assert not needs_quick_gelu("ViT-L-14", "/some/file.pt")


def test_a_missing_or_broken_clip_is_one_line_with_what_is_expected(
    folder: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    half = tmp_path / "half"
    half.mkdir()
    sizes = (folder / "open_clip_config.json").read_text()
    (half / "open_clip_config.json").write_text(sizes)
    other = tmp_path / "other"
    other.mkdir()
    wider = json.loads(sizes)
    wider["model_cfg"]["embed_dim"] = 24
    (other / "open_clip_config.json").write_text(json.dumps(wider))
    weights = (folder / "open_clip_model.safetensors").read_bytes()
    (other / "open_clip_model.safetensors").write_bytes(weights)
    cases = [
        (f"local-dir:{tmp_path / 'nothing'}", None),
        (f"local-dir:{empty}", None),
        (f"local-dir:{half}", None),  # no weights: random ones would be no classifier
        (f"local-dir:{other}", None),
        ("ViT-Z-99", "openai"),
        ("ViT-B-32", "no-such-tag"),
    ]
    for model, pretrained in cases:
        with pytest.raises(ModelError, match=r"^geneval, colours: ") as caught:
            load_color_classifier(model, pretrained, CPU)
        assert "\n" not in str(caught.value), model
