"""The estimate of a step's time: what it scales, where it stops, and that it leaves everything as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import PROMPTS, WideConfig, recipe, tiny_model

from t2i_credit import api
from t2i_credit.advantages import ADVANTAGES
from t2i_credit.api.parts import Parts
from t2i_credit.config.plugins import find_plugin
from t2i_credit.config.schema import Config, parse_config
from t2i_credit.credit.entry import as_entry
from t2i_credit.credit.table import CREDIT
from t2i_credit.interfaces import Prompt
from t2i_credit.measure.bench.plan import plan as plan_of
from t2i_credit.measure.bench.plan import step_seconds, told
from t2i_credit.rollout.sampling import sample_rollout


def settings(**sections: Any) -> Config:
    base = {"prompts": {"per_step": 4}, "rollout": {"group_size": 4, "cfg_scale": 2.0}}
    return parse_config(base | sections)


class Clock:
    """A clock that only the transformer moves on: so much for every row and input of a forward pass."""

    def __init__(self, model: Any, second: float) -> None:
        self.now, self.second = 0.0, second
        model.language_model.register_forward_pre_hook(self._tick, with_kwargs=True)

    def _tick(self, module: Any, args: Any, given: Any) -> None:
        rows, inputs = given["inputs_embeds"].shape[:2]
        self.now += self.second * rows * inputs

    def seconds(self, device: torch.device, work: Callable[[], Any]) -> float:
        began = self.now
        work()
        return self.now - began


def estimated(
    model: Any, config: Config, clock: Clock, patched: pytest.MonkeyPatch, **given: Any
) -> dict[str, float]:
    patched.setattr("t2i_credit.measure.bench.plan.seconds", clock.seconds)
    credit = as_entry(find_plugin(config.credit.name, CREDIT, "credit.name"))

    def reward(images: Any, prompts: Any) -> Any:
        return images.mean((1, 2, 3))

    prompts = given.pop("prompts", PROMPTS)
    advantage = ADVANTAGES["group_normalized"]
    return step_seconds(Parts(config, model, None, reward, prompts, advantage, credit), **given)


def test_sampling_takes_as_long_as_the_transformer_runs_in_a_rollout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 6 tokens, of which 4 are fed back in the slice and 5 in a rollout; two batches of 8
    model, config = tiny_model(WideConfig), settings(rollout={"group_size": 4, "batch_size": 8})
    same = [Prompt("a red circle")] * 4  # every batch takes the same
    clock = Clock(model, 1e-6)
    found = estimated(model, config, clock, monkeypatch, prompts=same)
    began = clock.now
    sample_rollout(model, same, group_size=4, cfg_scale=2.0, seed=0, batch_size=8)
    assert found["sampling"] == pytest.approx(clock.now - began, rel=1e-9)


@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
def test_the_update_takes_the_passes_of_the_configuration(
    kl_coef: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, config = tiny_model(WideConfig), settings(loss={"kl_coef": kl_coef})
    clock = Clock(model, 1e-6)
    found = estimated(model, config, clock, monkeypatch)
    began = clock.now
    condition = model.condition([p.text for p in PROMPTS], [p.negative for p in PROMPTS])
    codes = torch.zeros(16, 6, dtype=torch.long)
    model(condition, codes, want=["guided_logprobs"], cfg_scale=2.0)
    # the clock sees no backward pass: the policy's two branches, and the reference's two
    assert found["update"] == pytest.approx((clock.now - began) * (2 if kl_coef else 1), rel=1e-9)
    halved = estimated(model, config, clock, monkeypatch, processes=2)
    assert halved["sampling"] < found["sampling"] and halved["update"] < found["update"]


def test_a_slice_that_takes_a_while_is_not_made_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    model, config = tiny_model(WideConfig), settings()
    clock = Clock(model, 10.0)
    found = estimated(model, config, clock, monkeypatch, prompts=[Prompt("a red circle")] * 4)
    # two branches of <bos> a red circle <image>: 2 x 5 for the first token, 4 x 2 to feed four tokens back, after the
    # first token alone; then the update of the fewest tokens, 32 of 6 images: a group of 4, its prompts and 5 inputs
    assert clock.now == 10 * ((10 + 18) + (10 + 8 * 5))
    assert sum(found.values()) > 3 * clock.now  # of 16 images


def test_the_plan_tells_the_time_and_the_model_stays_as_it_was(tmp_path: Path) -> None:
    parts = api.prepare(parse_config(recipe(tmp_path)))
    before = {name: value.clone() for name, value in parts.model.state_dict().items()}
    threads = torch.get_num_threads()
    line = plan_of(parts)["time per step, about"]
    assert "sampling" in line and "update" in line and "scaled from a slice" in line
    assert all(torch.equal(v, before[n]) for n, v in parts.model.state_dict().items())
    assert all(p.grad is None for p in parts.model.parameters())
    assert torch.get_num_threads() == threads


def test_the_estimate_is_told_in_parts() -> None:
    line = told({"sampling": 12.345, "rewards": 0.123, "update": 3.21})
    assert line == "16 s (sampling 12 s, rewards 0.12 s, update 3.2 s), scaled from a slice of each"
