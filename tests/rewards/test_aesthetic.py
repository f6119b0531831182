"""The aesthetic reward: both of LAION's layouts, the tower that it shares, and files that are no heads."""

import pytest
import torch
from safetensors.torch import save_file
from tiny_clips import ARCHITECTURE, WIDTH, some_images, tiny_open_clip
from torch import nn

from t2i_credit.api.parts import build_reward
from t2i_credit.config.schema import parse_config
from t2i_credit.errors import ModelError
from t2i_credit.interfaces import Prompt
from t2i_credit.rewards import WeightedReward
from t2i_credit.rewards.aesthetic import AestheticHead, aesthetic, belonging, read_head
from t2i_credit.rewards.clip import clip

PROMPTS = [Prompt("anything"), Prompt("something"), Prompt("")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The parameters that name a random open_clip model, and its folder."""
    folder = tmp_path_factory.mktemp("tiny")
    save_file(tiny_open_clip(folder).state_dict(), folder / "clip.safetensors")
    return {"model": ARCHITECTURE, "pretrained": str(folder / "clip.safetensors")}, folder


def original_head(width, seed=1):
    """LAION's improved predictor as published: its ReLUs are commented out there."""
    torch.manual_seed(seed)
    layers = [nn.Linear(width, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2)]
    layers += [nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1)]
    return nn.ModuleDict({"layers": nn.Sequential(*layers)}).eval()


@pytest.mark.parametrize("name", ["head.pth", "head.safetensors"])
def test_the_score_is_the_originals_over_the_unit_embedding(tiny, name):
    params, folder = tiny
    head = original_head(WIDTH)
    path = folder / name
    if path.suffix == ".pth":
        torch.save(head.state_dict(), path)
    else:
        save_file(head.state_dict(), path)
    images = some_images(3, 48, 32)
    reward = aesthetic(head=str(path), **params)
    tower = reward.tower
    with torch.no_grad():
        raw = tower._encode_image(tower._prepare(images))
        unit = raw / raw.norm(dim=-1, keepdim=True)  # as simple_inference.py of the original does
        wanted = head["layers"](unit).squeeze(1)
    found = reward(images, PROMPTS)
    assert found.shape == (3,) and found.dtype == torch.float32
    assert torch.allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(head["layers"](raw).squeeze(1), wanted, atol=1e-3)


def test_the_plain_linear_head_is_read_too(tiny):
    params, folder = tiny
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, 1)
    path = folder / "linear.pth"
    torch.save(head.state_dict(), path)
    reward, images = aesthetic(head=str(path), **params), some_images(3, 32, 32)
    wanted = head(reward.tower.images(images, 8)).squeeze(1)
    assert torch.allclose(reward(images, PROMPTS), wanted, atol=1e-6)


def test_it_shares_the_tower_and_the_embedding_of_a_batch_with_the_clip_reward(tiny, monkeypatch):
    params, folder = tiny
    save_file(original_head(WIDTH).state_dict(), folder / "head.safetensors")
    parts = {
        "clip": (1.0, clip(**params)),
        "aesthetic": (0.1, aesthetic(head=str(folder / "head.safetensors"), **params)),
    }
    tower = parts["clip"][1].tower
    assert parts["aesthetic"][1].tower is tower
    sizes, encode = [], tower._encode_image
    monkeypatch.setattr(tower, "_encode_image", lambda x: sizes.append(len(x)) or encode(x))
    total, values = WeightedReward(parts)(some_images(3, 32, 32), PROMPTS)
    assert sizes == [3]
    assert torch.allclose(total, values["clip"] + 0.1 * values["aesthetic"])


def test_a_configuration_builds_the_weighted_sum_of_both(tiny):
    params, folder = tiny
    save_file(original_head(WIDTH).state_dict(), folder / "head.safetensors")
    head = str(folder / "head.safetensors")
    sections = {"clip": {"weight": 2.0, **params}, "aesthetic": {"head": head, **params}}
    reward, images = build_reward(parse_config({"reward": sections})), some_images(3, 32, 32)
    total, parts = reward(images, PROMPTS)
    assert list(parts) == ["clip", "aesthetic"]
    assert torch.allclose(total, 2.0 * parts["clip"] + parts["aesthetic"])


def test_a_head_of_laions_size_does_not_fit_a_narrow_clip(tiny, tmp_path):
    params, _ = tiny
    torch.save(original_head(768).state_dict(), tmp_path / "l14.pth")
    message = (
        f"width 768, but {ARCHITECTURE} makes them {WIDTH} wide; .* ViT-L-14, pretrained openai"
    )
    with pytest.raises(ModelError, match=message) as error:
        aesthetic(head=str(tmp_path / "l14.pth"), **params)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("head", "model", "pretrained"),
    [
        ("sac+logos+ava1-l14-linearMSE.pth", "ViT-L-14", "openai"),
        ("heads/sac+logos+ava1-l14-linearMSE.safetensors", "ViT-L-14-quickgelu", "openai"),
        ("sa_0_4_vit_b_32_linear.pth", "ViT-B-32", "openai"),
        ("renamed.pth", "ViT-L-14", "openai"),
    ],
)
def test_laions_heads_belong_to_openais_clips(head, model, pretrained):
    assert belonging(head, 768, model, pretrained) == ""


@pytest.mark.parametrize(
    ("head", "model", "pretrained"),
    [
        ("sac+logos+ava1-l14-linearMSE.pth", "ViT-L-14", "laion2b_s32b_b82k"),  # 768 wide, too
        ("sac+logos+ava1-l14-linearMSE.pth", "ViT-B-16-SigLIP", "webli"),  # 768 wide, too
        ("sa_0_4_vit_b_32_linear.pth", "ViT-B-16", "openai"),  # both 512 wide
        ("sa_0_4_vit_l_14_linear.pth", "ViT-H-14", __file__),  # a file of weights
    ],
)
def test_another_clip_of_the_same_width_is_refused_by_name(head, model, pretrained):
    with pytest.raises(ModelError, match=r"was made for model ViT-[LB]-.*, pretrained openai; its"):
        belonging(head, 768, model, pretrained)


@pytest.mark.parametrize(
    ("head", "model", "pretrained", "said"),
    [
        ("sac+logos+ava1-l14-linearMSE.pth", "my/folder", None, "nobody knows whether model my/fo"),
        ("sac+logos+ava1-l14-linearMSE.pth", "ViT-L-14", __file__, "nobody knows whether model"),
        ("renamed.pth", "ViT-B-16-SigLIP", "webli", "has the width of LAION's, made for model ViT"),
    ],
)
def test_what_a_name_does_not_tell_is_said(head, model, pretrained, said):
    assert said in belonging(head, 768, model, pretrained)


def test_a_head_of_ones_own_for_another_width_is_ones_own_affair():
    assert belonging("mine.pth", 1152, "ViT-SO400M-14-SigLIP", "webli") == ""


def test_a_head_of_another_clip_is_refused_where_it_is_built(tiny):
    params, folder = tiny
    path = folder / "sac+logos+ava1-l14-linearMSE.pth"
    torch.save(original_head(WIDTH).state_dict(), path)
    with pytest.raises(ModelError, match="its scores mean nothing for model"):
        aesthetic(head=str(path), **params)


class Foreign:
    """What a pickle of a whole model holds: code, and not tensors alone."""


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is no file; LAION's files are sac"),
        ({"layers.0.weight": torch.zeros(4, 3)}, "is no aesthetic head"),
        (AestheticHead(3, (8, 4, 4, 2)).state_dict() | {"more": torch.zeros(1)}, "is no aesthetic"),
        ([torch.zeros(2)], "is no aesthetic head"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, "is no aesthetic head"),
        (Foreign(), "cannot be loaded: a pickle that holds more than tensors, such as .*Foreign; "),
    ],
)
def test_what_is_no_head_is_refused_in_one_line(content, said, tmp_path):
    path = tmp_path / "head.pth"
    if content is not None:
        torch.save(content, path)
    with pytest.raises(ModelError, match=said) as error:
        read_head(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_embedded_head_and_the_embedded_clip_go_together(tiny, tmp_path):
    for params in ({"head": "mine.pth"}, tiny[0]):
        with pytest.raises(ModelError, match="the embedded ones go together"):
            aesthetic(**params)


@pytest.mark.weights("rewards/embedded")
def test_the_embedded_head_prefers_a_clean_picture():
    import numpy as np

    from t2i_credit.rollout.images import from_uint8
    from t2i_credit.worlds.shapes.examples import SPOILS, spoil
    from t2i_credit.worlds.shapes.scene import Object, Scene, render

    image = render(Scene((Object("ring", "red", 13, 24, 9), Object("square", "blue", 35, 24, 9))))[
        0
    ]
    spoiled = [spoil(image, kind, 0.9, np.random.default_rng(0)) for kind in SPOILS]
    scores = aesthetic()(from_uint8([image, *spoiled]), [Prompt("")] * 5)
    assert (scores[0] > scores[1:] + 1).all()
