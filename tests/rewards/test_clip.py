"""The CLIP reward: preprocessing, towers, caches, and what is said about weights that are not there."""

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import save_file
from tiny_clips import ARCHITECTURE, as_pictures, some_images, tiny_open_clip

from t2i_credit.config.plugins import check_params
from t2i_credit.errors import ConfigError, ModelError, PromptError, UserError
from t2i_credit.interfaces import Prompt
from t2i_credit.rewards import REWARDS, WeightedReward, clip_input
from t2i_credit.rewards.clip import clip
from t2i_credit.rewards.clip_input import ClipInput, resize
from t2i_credit.worlds.pretrain.rewards import build_clip, save_clip

PROMPTS = [Prompt("a photo of a red circle"), Prompt("two squares"), Prompt("two squares")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A random open_clip model and a file of its weights."""
    folder = tmp_path_factory.mktemp("tiny")
    model = tiny_open_clip(folder)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, folder / "epoch_1.pt")
    return model, folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An untrained CLIP of the embedded world, in open_clip's folder layout."""
    folder = tmp_path_factory.mktemp("world") / "clip"
    save_clip(build_clip(seed=0)[0], folder)
    return folder


def reward_of(tiny, **params):
    return clip(
        model=ARCHITECTURE, pretrained=str(tiny[1] / "open_clip_model.safetensors"), **params
    )


def count_calls(monkeypatch, tower, name):
    """The sizes of the batches that one of the tower's encoders gets."""
    sizes, encode = [], getattr(tower, name)

    def counted(batch):
        sizes.append(len(batch))
        return encode(batch)

    monkeypatch.setattr(tower, name, counted)
    return sizes


# ---- preprocessing


@pytest.mark.parametrize("shape", [(48, 48), (96, 130), (130, 61), (40, 40)])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_tensors_are_preprocessed_as_open_clip_preprocesses_pictures(shape, mode, interpolation):
    settings = PreprocessCfg(size=40, resize_mode=mode, interpolation=interpolation)
    images = some_images(2, *shape)
    transform = image_transform_v2(settings, is_train=False)
    wanted = torch.stack([transform(picture) for picture in as_pictures(images)])
    found = ClipInput.of_open_clip(vars(settings))(images)
    assert found.shape == (2, 3, 40, 40)
    # the same levels, so only float32 arithmetic differs; a level off would be 1 / 255 / 0.27 = 0.015
    assert torch.allclose(found, wanted, atol=1e-5)


def test_a_model_that_is_wider_than_high_sees_the_middle():
    settings = PreprocessCfg(size=(24, 40))
    images = some_images(1, 60, 50)
    transform = image_transform_v2(settings, is_train=False)
    found = ClipInput.of_open_clip(vars(settings))(images)
    assert torch.allclose(found[0], transform(as_pictures(images)[0]), atol=1e-5)


def test_pictures_are_resized_a_few_at_a_time_and_in_strips_to_the_same_values(monkeypatch):
    images = some_images(5, 130, 61)
    wanted = ClipInput((40, 40), (0.5,) * 3, (0.2,) * 3)(images)
    monkeypatch.setattr(clip_input, "AT_ONCE", 3 * 130 * 61 * 2)
    monkeypatch.setattr(clip_input, "COLUMNS", 7)
    assert torch.equal(ClipInput((40, 40), (0.5,) * 3, (0.2,) * 3)(images), wanted)


@pytest.mark.parametrize("shape", [(2000, 1), (1, 100_000)])
def test_a_picture_far_too_narrow_is_refused_before_it_is_resized(shape):
    with pytest.raises(UserError, match=f"{shape[1]} x {shape[0]} pixels are too narrow"):
        ClipInput((40, 40), (0.5,) * 3, (0.2,) * 3)(torch.zeros(1, 3, *shape))


def test_resizing_noise_gives_pillows_levels_to_the_bit():
    draw = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (1, 3, 57, 90), generator=draw).float()
    picture = as_pictures(levels / 255)[0]
    for size in ((31, 33), (224, 200)):
        small = torch.tensor(list(picture.resize(size[::-1], resample=3).tobytes()))
        wanted = small.view(*size, 3).permute(2, 0, 1)
        assert torch.equal(resize(levels, size, "bicubic")[0], wanted.float())


# ---- the reward


def test_the_reward_is_the_cosine_that_open_clip_computes_from_pictures(tiny):
    model, _ = tiny
    images = some_images(3, 48, 64)
    _, _, transform = open_clip.create_model_and_transforms(ARCHITECTURE)
    with torch.no_grad():
        drawn = model.encode_image(
            torch.stack([transform(p) for p in as_pictures(images)]), normalize=True
        )
        tokens = open_clip.get_tokenizer(ARCHITECTURE)([p.text for p in PROMPTS])
        written = model.encode_text(tokens, normalize=True)
        wanted = (drawn * written).sum(1)
    found = reward_of(tiny)(images, PROMPTS)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert len(set(found.tolist())) == 3  # the images differ, and so do the prompts
    logits = reward_of(tiny, scale="logit")(images, PROMPTS)
    assert torch.allclose(logits, model.logit_scale.exp() * wanted, atol=1e-4)


def test_a_training_checkpoint_with_a_state_dict_gives_the_same_reward(tiny):
    images = some_images(3, 32, 32)
    other = clip(model=ARCHITECTURE, pretrained=str(tiny[1] / "epoch_1.pt"))
    assert torch.equal(other(images, PROMPTS), reward_of(tiny)(images, PROMPTS))


def test_a_batch_gives_the_rewards_of_its_parts_without_gradient(tiny):
    images = some_images(3, 40, 32).requires_grad_()
    whole = reward_of(tiny)(images, PROMPTS)
    parts = [reward_of(tiny)(images[i : i + 1], PROMPTS[i : i + 1]) for i in range(3)]
    chunked = reward_of(tiny, batch_size=2)(images, PROMPTS)
    assert torch.allclose(whole, torch.cat(parts), atol=1e-6)
    assert torch.allclose(whole, chunked, atol=1e-6)
    assert whole.dtype == torch.float32 and not whole.requires_grad


def test_each_prompt_is_encoded_once(tiny, monkeypatch):
    reward = reward_of(tiny)
    sizes = count_calls(monkeypatch, reward.tower, "_encode_text")
    reward(some_images(3, 32, 32), [Prompt("a"), Prompt("b"), Prompt("a")])
    reward(some_images(2, 32, 32), [Prompt("b"), Prompt("c")])
    assert sizes == [2, 1]


def test_two_rewards_of_one_model_share_it_and_encode_a_batch_once(tiny, monkeypatch):
    cosine, logit = reward_of(tiny), reward_of(tiny, scale="logit")
    assert cosine.tower is logit.tower
    assert reward_of(tiny, dtype="bfloat16").tower is not cosine.tower
    sizes = count_calls(monkeypatch, cosine.tower, "_encode_image")
    both = WeightedReward({"cosine": (1.0, cosine), "logit": (0.5, logit)})
    images = some_images(3, 32, 32)
    _, parts = both(images, PROMPTS)
    assert sizes == [3]
    images[0] = 0.0  # the same tensor, but another batch
    _, changed = both(images, PROMPTS)
    assert sizes == [3, 3]
    assert parts["cosine"][0] != changed["cosine"][0]


def test_half_precision_agrees_roughly(tiny):
    images = some_images(3, 32, 32)
    half = reward_of(tiny, dtype="bfloat16")(images, PROMPTS)
    assert torch.allclose(half, reward_of(tiny)(images, PROMPTS), atol=0.03)


def test_a_folder_in_open_clips_layout_is_a_model(world):
    images = some_images(2, 48, 48)
    prompts = [Prompt("a photo of a red circle"), Prompt("A photo of two rings")]
    found = clip(model=str(world))(images, prompts)
    same = clip(model=f"local-dir:{world}")(images, prompts)
    assert torch.equal(found, same)
    assert found[0] != found[1]


def test_a_word_that_the_world_does_not_have_is_refused(world):
    reward = WeightedReward({"clip": (1.0, clip(model=str(world)))})
    reward.check([Prompt("a photo of a red circle, blurred"), Prompt("")])
    with pytest.raises(PromptError, match=r"'a red dog': .* does not know 'dog'"):
        reward.check([Prompt("a red dog")])


LONG = "a red circle and a blue square " * 20  # 140 words, of which the tiny model reads 77 tokens


def test_prompts_whose_end_is_not_read_are_counted_and_named(tiny):
    reward = reward_of(tiny)
    two = [Prompt(LONG + end) for end in ("dog", "cat")]
    images = some_images(1, 40, 40).expand(2, -1, -1, -1)
    assert reward(images, two).unique().numel() == 1  # what is to be said
    (line,) = WeightedReward({"clip": (1.0, reward)}).check([*PROMPTS, *two, two[0]])
    # of four different prompts; 141 words and two marks around them
    assert line == (
        f"reward clip ({reward.tower.name}) reads 77 tokens of a prompt: the end of 2 of 4 changes nothing; "
        f"the longest has 143: {LONG[:57] + '...'!r}"
    )
    assert reward.check(PROMPTS) == []


def test_the_limit_is_where_the_reward_stops_changing(tiny, world):
    """One word more is read up to the limit that `check` names, and not beyond."""
    for reward in (reward_of(tiny), clip(model=str(world))):
        limit = reward.tower.text_limit
        images = some_images(1, 48, 48).expand(2, -1, -1, -1)
        for words, said in ((limit - 2, 0), (limit - 1, 1)):
            two = [Prompt("red " * (words - 1) + end) for end in ("circle", "square")]
            assert (reward(images, two).unique().numel() == 1) == bool(said)
            assert len(reward.check(two)) == said


# ---- bad input


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (
            {"model": "ViT-L-41", "pretrained": "openai"},
            "and model 'ViT-L-41' is none; did you mean",
        ),
        ({"model": "VIT"}, "model: 'VIT' is not known"),
        ({"model": "ViT-L-14"}, r"pretrained: missing; .* needs a tag \(openai, "),
        ({"model": "ViT-L-14", "pretrained": "opnai"}, "'opnai' is no file"),
        ({"model": "hf-hub:a/b", "pretrained": "openai"}, "goes with an open_clip architecture"),
        (
            {"model": "nobody/nothing"},
            "hf-hub:nobody/nothing: cannot be loaded: .* without a network",
        ),
        ({"model": "local-dir:/no/such"}, "/no/such/open_clip_config.json: missing"),
    ],
)
def test_weights_that_are_not_there_are_named_in_one_line(params, said):
    with pytest.raises(ModelError, match=said) as error:
        clip(**params)
    assert str(error.value).startswith("clip: ")
    assert "\n" not in str(error.value)


def test_weights_of_another_architecture_are_refused_in_one_line(tiny, tmp_path):
    state = tiny[0].state_dict()
    state["text_projection"] = state["text_projection"][:, :20].contiguous()
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"other.safetensors: cannot be loaded: .*text_projection"):
        clip(model=ARCHITECTURE, pretrained=str(tmp_path / "other.safetensors"))


def test_a_file_that_holds_no_weights_is_refused_in_one_line(tiny):
    with pytest.raises(
        ModelError, match=r"test_clip.py: no file of weights, it begins with b"
    ) as error:
        clip(model=ARCHITECTURE, pretrained=__file__)
    assert "\n" not in str(error.value)


def test_tensors_of_another_model_are_named_by_the_first_and_counted(tiny, tmp_path):
    state = tiny[0].state_dict()
    torch.save({"other": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(ModelError) as error:
        clip(model=ARCHITECTURE, pretrained=str(tmp_path / "other.pt"))
    lacking = f"missing are positional_embedding and {len(state) - 1} more"
    assert str(error.value).endswith(f"its tensors are not those of a CLIP: {lacking}")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(ModelError) as error:
        clip(model=ARCHITECTURE, pretrained=str(tmp_path / "empty.pt"))
    assert str(error.value) == f"clip: {tmp_path}/empty.pt: empty; copy or download it again"


def test_a_folder_without_weights_is_refused(world, tmp_path):
    (tmp_path / "open_clip_config.json").write_bytes((world / "open_clip_config.json").read_bytes())
    with pytest.raises(ModelError, match=r"open_clip_model.safetensors: missing"):
        clip(model=str(tmp_path))


def test_a_device_that_is_none_is_refused(tiny):
    with pytest.raises(ModelError, match="device: 'gpu7' cannot be used"):
        reward_of(tiny, device="gpu7")


@pytest.mark.parametrize("wrong", [{"scale": "percent"}, {"batch_size": 0}, {"modle": "x"}])
def test_wrong_parameters_are_refused_before_anything_is_loaded(wrong):
    (key,) = wrong
    with pytest.raises((ConfigError, ValueError), match=rf"reward\.clip\.{key}"):
        check_params(REWARDS["clip"], wrong, "reward.clip")


# ---- the embedded model


@pytest.mark.weights("rewards/embedded")
def test_the_embedded_clip_prefers_the_true_caption():
    from t2i_credit.rollout.images import from_uint8
    from t2i_credit.worlds.shapes.scene import Object, Scene, render

    left = Scene((Object("ring", "red", 13, 24, 9), Object("square", "blue", 35, 24, 9)))
    images = from_uint8([render(left)[0]]).repeat(3, 1, 1, 1)
    texts = ["a photo of a red ring and a blue square", "a photo of four crosses"]
    found = clip()(images, [Prompt(t) for t in [*texts, "a photo of a yellow triangle"]])
    assert found[0] > found[1] + 0.1
    assert found[0] > found[2] + 0.1
