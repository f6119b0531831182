"""Reward maps: gradient, objects, occlusion and redraw, by the embedded generator, detector, CLIP and aesthetic head."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from t2i_credit.api.models import load_model
from t2i_credit.api.objects import describe_world
from t2i_credit.api.parts import build_maps, build_reward
from t2i_credit.config.schema import parse_config
from t2i_credit.errors import ConfigError, ModelError, TrainingError
from t2i_credit.interfaces import Rollout
from t2i_credit.rewards.maps import block_numbers
from t2i_credit.rollout.ground import ground_codes
from t2i_credit.rollout.redraw import fresh_draws
from t2i_credit.rollout.sampling import sample_rollout
from t2i_credit.training.metrics import object_tokens
from t2i_credit.worlds.shapes.grammar import prompt_set

pytestmark = pytest.mark.weights
TASKS = ("counting", "position", "color_attr")
SAMPLING = {"cfg_scale": 2.0, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


@cache
def model() -> Any:
    return load_model("shapes")


@cache
def rollout() -> Rollout:
    """Twelve images of six prompts."""
    prompts = [prompt for task in TASKS for prompt in prompt_set("train", (task,))[40:42]]
    return sample_rollout(model(), prompts, group_size=2, seed=5, **SAMPLING)


def built(**reward: Any) -> tuple[Any, Any]:
    """The reward of a section and its maps."""
    config = parse_config({"reward": reward, "rollout": SAMPLING})
    found = build_reward(config)
    return found, build_maps(config, found)


def mapped(seed: int = 0, of: Rollout | None = None, **reward: Any) -> torch.Tensor:
    found, maps = built(**reward)
    of = of or rollout()
    _, parts = found(of.images, of.prompts)
    return maps(model(), of, parts, seed=seed)


# Gradient ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip", "aesthetic"])
def test_the_gradient_map_is_the_change_of_the_reward_to_first_order(name: str) -> None:
    found = mapped(**{name: {"map": "gradient"}})
    _, reward = built(**{name: {"map": "gradient"}})[0].parts[name]
    sampled = rollout()
    vectors = model().vectors(sampled.tokens)
    apart = vectors - vectors.mean(1, keepdim=True)

    def value(share: torch.Tensor) -> torch.Tensor:
        """(B,) with so much of each code's way to the mean code added, share (B, T) or (T,)."""
        with torch.no_grad():
            images = model().decode_vectors(vectors + share[..., None] * apart)
            return reward.differentiable(images, sampled.prompts).double()

    # central differences: of every eighth token alone, then of all tokens together
    step = 3e-2
    for t in range(0, 36, 8):
        one = torch.zeros(36)
        one[t] = step
        slope = (value(one) - value(-one)) / (2 * step)
        torch.testing.assert_close(found[:, t].double(), slope, rtol=0.03, atol=4e-4)
    every = torch.full((36,), step / 15)
    slope = (value(every) - value(-every)) / (2 * step / 15)
    torch.testing.assert_close(found.double().sum(1), slope, rtol=0.03, atol=2e-3)
    assert (found.abs().amax(1) > 1e-3).all() and (found < 0).any() and (found > 0).any()


def test_chunks_of_any_size_give_the_same_gradient_map() -> None:
    whole = mapped(clip={"map": "gradient", "map_batch": 64})
    parts = mapped(clip={"map": "gradient", "map_batch": 5})
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-7)


def test_a_reward_with_a_gradient_gives_what_it_gives_without_but_for_rounding() -> None:
    sampled = rollout()
    for name in ("clip", "aesthetic"):
        _, reward = built(**{name: {}})[0].parts[name]
        rounded = reward(sampled.images, sampled.prompts)
        smooth = reward.differentiable(sampled.images, sampled.prompts)
        torch.testing.assert_close(smooth, rounded, rtol=0.02, atol=0.02)


def test_maps_of_several_parts_are_added_up_by_weight() -> None:
    clip, aesthetic = (mapped(**{n: {"map": "gradient"}}) for n in ("clip", "aesthetic"))
    both = mapped(
        clip={"map": "gradient", "weight": 2.0}, aesthetic={"map": "gradient", "weight": -0.5}
    )
    torch.testing.assert_close(both, 2 * clip - 0.5 * aesthetic)


# Objects ----------------------------------------------------------------------------------------------------------


def test_the_objects_map_sits_on_the_objects_that_the_verdict_looked_at() -> None:
    sampled = rollout()
    found = mapped(geneval={"map": "objects"})
    objects = describe_world("shapes")(sampled)
    covered = object_tokens(objects, model().grid, (48, 48), coverage=1e-6)
    assert not found[~covered].any()
    assert (found.abs() <= 1).all() and (found > 0).any() and (found < 0).any()
    # whatever the image is worth: a picture that the verdict passes shows right objects alone
    passed = built(geneval={})[0](sampled.images, sampled.prompts)[0] == 1
    assert passed.any() and not passed.all()
    assert (found[passed] >= 0).all() and (found[passed].amax(1) > 0).all()


# Occlusion and redraw ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 2, 3])
def test_the_occlusion_map_adds_up_to_what_each_block_costs(block: int) -> None:
    sampled = rollout()
    reward, _ = built(clip={})
    before, _ = reward(sampled.images, sampled.prompts)
    found = mapped(clip={"map": "occlusion", "map_block": block})
    ground = ground_codes(sampled.tokens, model().codebook, model().grid)
    numbers = block_numbers(model().grid, block)
    assert numbers.bincount().tolist() == [block * block] * (36 // block**2)
    for number in range(0, int(numbers.max()) + 1, 4):
        inside = numbers == number
        edited = torch.where(inside, ground, sampled.tokens)
        after, _ = reward(model().decode(edited), sampled.prompts)
        lost = found[:, inside].sum(1)
        torch.testing.assert_close(lost, before - after, rtol=0, atol=2e-4)
    assert not found[ground == sampled.tokens].any() and found.any()


def test_the_ground_stays_and_figures_become_the_ground_beside_them() -> None:
    # 2 x 5 tokens: codes 0 and 1 look alike, 2 and 3 do not
    codebook = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [0.0, 1.0]])
    tokens = torch.tensor([[0, 0, 2, 1, 1, 0, 0, 3, 1, 1]])
    ground = ground_codes(tokens, codebook, (2, 5))
    assert ground.tolist() == [[0, 0, ground[0, 2], 1, 1, 0, 0, ground[0, 7], 1, 1]]
    assert {int(ground[0, 2]), int(ground[0, 7])} <= {0, 1}
    tokens = torch.tensor([[2, 0, 0, 1, 1, 0, 0, 0, 1, 3]])
    assert ground_codes(tokens, codebook, (2, 5)).tolist() == [[0, 0, 0, 1, 1, 0, 0, 0, 1, 1]]
    alike = torch.full((1, 10), 3)
    assert torch.equal(ground_codes(alike, codebook, (2, 5)), alike)


def test_redrawn_tokens_follow_the_policy_and_their_seed() -> None:
    sampled = rollout()
    drawn = fresh_draws(model(), sampled, 64, seed=1, **SAMPLING)
    assert drawn.shape == (12, 36, 64)
    split = fresh_draws(model(), sampled, 64, seed=1, batch_size=3, **SAMPLING)
    assert (split == drawn).float().mean() > 0.999  # matrix products of other sizes round otherwise
    # the sampled code comes again as often as its probability says: 432 tokens of 64 draws, standard error < 0.003
    again = (drawn == sampled.tokens[..., None]).float().mean()
    assert again == pytest.approx(float(sampled.guided_logprobs.exp().mean()), abs=0.01)
    first = {"map": "redraw", "map_block": 3, "map_draws": 2}
    one, same, other = (mapped(seed=seed, geneval=first) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_a_share_of_the_samples_has_the_map_that_it_has_in_the_whole() -> None:
    sampled = rollout()
    reward, maps = built(geneval={"map": "redraw", "map_block": 3})
    _, parts = reward(sampled.images, sampled.prompts)
    whole = maps(model(), sampled, parts, seed=3)
    rows = torch.arange(4, 8)
    some = {name: part[rows] for name, part in parts.items()}
    share = maps(model(), sampled.select(rows), some, seed=3, first_sample=4)
    assert torch.equal(share, whole[rows])


def test_tokens_off_the_mask_have_no_map() -> None:
    mask = torch.ones_like(rollout().mask)
    mask[:, :18] = False
    found = mapped(of=replace(rollout(), mask=mask), clip={"map": "gradient"})
    assert not found[:, :18].any() and found[:, 18:].any()


# Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (
            {"geneval": {"map": "gradient"}},
            r"reward.geneval.map: 'gradient' is refused: this reward has no gradient in the pixels "
            r"\(possible: objects, occlusion, redraw\)",
        ),
        (
            {"clip": {"map": "objects"}},
            r"reward.clip.map: 'objects' is refused: this reward finds no objects "
            r"\(possible: gradient, occlusion, redraw\)",
        ),
    ],
)
def test_a_map_that_a_reward_does_not_have_is_refused(reward: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        built(**reward)


def test_a_generator_or_a_grid_that_allows_no_map_is_refused() -> None:
    class Fixed:
        grid = (6, 4)

    with pytest.raises(ModelError, match=r"reward\.clip\.map: 'gradient' is refused: Fixed has no"):
        built(clip={"map": "gradient"})[1].check(Fixed())
    too_large = built(clip={"map": "occlusion", "map_block": 3})[1]
    too_large.check(model())
    with pytest.raises(ConfigError, match=r"map_block: 3 is not allowed: .* 6 x 4 tokens.* 1 to 2"):
        too_large.check(Fixed())


def test_a_map_that_is_not_finite_is_one_line() -> None:
    _, maps = built(clip={"map": "occlusion"})
    parts = {"clip": torch.full((12,), torch.nan)}
    with pytest.raises(TrainingError, match=r"^map of reward clip: returned a value that is not"):
        maps(model(), rollout(), parts, seed=0)
