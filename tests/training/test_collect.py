"""Collecting a step's groups: dynamic sampling fills the step, counts what it drops, and goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import PROMPTS, tiny_model

from t2i_credit.config.schema import Config, parse_config
from t2i_credit.interfaces import Prompt, Rollout
from t2i_credit.prompts.batches import PromptBatches
from t2i_credit.rollout.sampling import TRAINING, derive_seed, sample_rollout
from t2i_credit.training.collect import GroupCollector, Scored, StepGroups

SIZE, PER_STEP, SEED = 2, 2, 5
RED = {p.text for p in PROMPTS if "red" in p.text}  # all but one
MODEL = tiny_model()
Judge = Callable[[int, Rollout], tuple[Tensor, Mapping[str, Tensor]]]


def settings(**rollout: Any) -> Config:
    sizes = {"group_size": SIZE, "cfg_scale": 2.0}
    tree = {"rollout": sizes | rollout, "train": {"seed": SEED}, "reward": {"part": {}}}
    return parse_config(tree)


def sample(prompts: Sequence[Prompt], seed: int) -> Rollout:
    return sample_rollout(MODEL, prompts, group_size=SIZE, cfg_scale=2.0, seed=seed)


def batches() -> PromptBatches:
    return PromptBatches(PROMPTS, per_step=PER_STEP, seed=1)


def uneven_on(texts: set[str]) -> Judge:
    """The second sample of a group is worth 1 more than the first, for these prompts alone."""

    def judge(step: int, rollout: Rollout) -> tuple[Tensor, Mapping[str, Tensor]]:
        rewards = torch.tensor(
            [float(b % SIZE and p.text in texts) for b, p in enumerate(rollout.prompts)]
        )
        return rewards, {"part": rewards}

    return judge


def no_gold(rollout: Rollout, failed: Tensor, seed: int) -> tuple[Rollout, Tensor]:
    raise AssertionError("gold was not asked for")


class Collector(GroupCollector):
    """With the trainer's loop around it: everything that was sampled for a step, what to train on, and the counts."""

    def __call__(self, step: int) -> tuple[Scored, Scored, Mapping[str, float]]:
        groups = StepGroups(self, step)
        for prompts, seed in groups.rounds():
            rollout = sample(prompts, seed)
            groups.add(rollout, *self.judge(step, rollout))
        return groups.sampled, groups.trained, groups.counts


def collector(config: Config, judge: Judge, prompts: PromptBatches | None = None) -> Collector:
    return Collector(config, prompts or batches(), judge=judge, go_gold=no_gold)


def texts_of(rollout: Rollout) -> list[str]:
    return [p.text for p in rollout.prompts[::SIZE]]


def test_without_dynamic_sampling_a_step_is_one_rollout_of_its_prompts() -> None:
    collect = collector(settings(), uneven_on(set()))
    for step in (1, 2):
        sampled, trained, counts = collect(step)
        expected = sample(batches().batch(step - 1), derive_seed(TRAINING, SEED, step))
        assert torch.equal(trained.rollout.tokens, expected.tokens)
        assert trained is sampled and counts == {}
    assert collect.refills == 0


def test_groups_of_equal_rewards_give_way_to_the_next_prompts_until_the_step_is_full() -> None:
    order = [p.text for p in batches().at(0, 40)]
    collect = collector(settings(dynamic=True, max_rounds=9), uneven_on(RED))
    place = 0
    for step in (1, 2, 3, 4):
        sampled, trained, counts = collect(step)
        asked = texts_of(sampled.rollout)
        # the order is walked without a gap, no further than needed, and what teaches nothing is left out
        assert asked == order[place : place + len(asked)]
        place += len(asked)
        assert texts_of(trained.rollout) == [text for text in asked if text in RED]
        assert len(texts_of(trained.rollout)) == PER_STEP
        assert counts["groups_dropped"] == len(asked) - PER_STEP
        assert counts["groups_trained"] == PER_STEP
        assert collect.refills == place - step * PER_STEP
        assert len(set(trained.target.reshape(-1, SIZE).diff(dim=1).flatten().tolist())) == 1
    assert collect.refills > 0


def test_every_round_has_noise_of_its_own_and_a_step_without_drops_has_that_of_plain_sampling() -> (
    None
):
    everything = {p.text for p in PROMPTS}
    full, _, counts = collector(settings(dynamic=True), uneven_on(everything))(1)
    plain, _, _ = collector(settings(), uneven_on(everything))(1)
    assert torch.equal(full.rollout.tokens, plain.rollout.tokens)
    assert counts == {"rounds": 1, "groups_dropped": 0, "groups_trained": PER_STEP}
    same = Prompt("a red circle")
    one = PromptBatches([same], per_step=1, seed=0)
    collect = collector(settings(dynamic=True, max_rounds=3), uneven_on(set()), one)
    rounds = collect(1)[0].rollout.tokens.unflatten(0, (3, SIZE))
    assert not torch.equal(rounds[0], rounds[1]) and not torch.equal(rounds[1], rounds[2])


def test_when_the_rounds_run_out_the_step_trains_on_what_there_is() -> None:
    only = PROMPTS[0].text
    collect = collector(settings(dynamic=True, max_rounds=2), uneven_on({only}))
    seen = []
    for step in range(1, 4):
        sampled, trained, counts = collect(step)
        found = texts_of(sampled.rollout).count(only)
        seen.append(found)
        assert counts["groups_trained"] == found
        assert counts["groups_dropped"] == len(texts_of(sampled.rollout)) - found
        assert texts_of(trained.rollout) == [only] * found
    assert seen[0] == 1  # of the four prompts of the first epoch


def test_a_step_in_which_nothing_can_be_learned_keeps_its_first_groups_without_advantage() -> None:
    sampled, trained, counts = collector(settings(dynamic=True, max_rounds=3), uneven_on(set()))(1)
    assert counts == {"rounds": 3, "groups_dropped": 6, "groups_trained": 0}
    assert texts_of(trained.rollout) == texts_of(sampled.rollout)[:PER_STEP]
    assert (trained.target == 0).all()


@pytest.mark.parametrize("normalize", ["none", "running", "group"])
def test_a_collector_that_takes_up_a_state_goes_on_as_the_undisturbed_one(normalize: str) -> None:
    config = parse_config(
        {
            "rollout": {"group_size": SIZE, "cfg_scale": 2.0, "dynamic": True},
            "reward": {"part": {"normalize": normalize}},
        }
    )
    first = collector(config, uneven_on(RED))
    first(1)
    first(2)
    state = first.state()
    later = collector(config, uneven_on(RED))
    later.load(state)
    ours, theirs = later(3), first(3)
    assert torch.equal(ours[1].rollout.tokens, theirs[1].rollout.tokens)
    assert torch.equal(ours[1].target, theirs[1].target)
    assert ours[2] == theirs[2] and later.state() == first.state()
    fresh = collector(config, uneven_on(RED))
    assert texts_of(fresh(3)[0].rollout) != texts_of(theirs[0].rollout)


def test_probes_are_normalised_and_teach_the_running_statistics_nothing() -> None:
    config = parse_config(
        {"rollout": {"group_size": SIZE}, "reward": {"part": {"normalize": "running"}}}
    )
    collect = collector(config, uneven_on(RED))
    collect(1)
    before = collect.state()
    probes = sample(PROMPTS[:1], 0)
    scored = collect.scored(probes, *collect.judge(1, probes), learn=False)
    assert collect.state() == before
    assert torch.equal(scored.target, scored.normalized["part"])
    assert torch.equal(scored.rewards, torch.tensor([0.0, 1.0]))


# 2 steps of 2 prompts, then of 3: places 0 to 3, then 4 to 6
def test_another_number_of_prompts_a_step_goes_on_in_the_order_where_it_was() -> None:
    order = [p.text for p in batches().at(0, 7)]
    first = collector(settings(), uneven_on(RED))
    assert [t for step in (1, 2) for t in texts_of(first(step)[0].rollout)] == order[:4]
    more = PromptBatches(PROMPTS, per_step=3, seed=1)
    later = collector(settings(), uneven_on(RED), more)
    later.load(first.state(), 2)
    assert texts_of(later(3)[0].rollout) == order[4:]
