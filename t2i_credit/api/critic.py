"""A critic fitted to rollouts of a generator before any training, as one file that every run may begin with. Trains no generator.

Shapes: P prompts, G samples of each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.schema import Config, parse_config
from ..config.values import with_section
from ..errors import ConfigError
from .memory import out_of_memory
from .parts import Parts, prepare

if TYPE_CHECKING:
    from ..training.critic.critic import Critic
    from ..training.critic.file import CriticFile
    from ..training.critic.replay import Batch

LEAST_BATCHES = 8
REPORTED = 10  # batches between two reports
HELD = 6  # one batch of so many is not learned from, but at least three

Report = Callable[[str, int, int, Mapping[str, float]], None]


def critic_config(config: Config) -> Config:
    """The configuration whose critic is fitted: of any recipe, with the credit that has one.

    Raises:
        ConfigError: it names a critic's file already, or its critic goes together with no such credit.
    """
    if config.critic.file is not None:
        raise ConfigError("critic.file: is what fit-critic writes; leave it out, and give --out")
    if config.credit.has_critic:
        return config
    tree = config.model_dump(mode="json") | {"credit": {"name": "value"}}
    return parse_config(tree, where="fit-critic")


@out_of_memory()
def fit_critic(
    config: Config,
    out: Path,
    *,
    batches: int = 120,
    passes: int = 6,
    report: Report = lambda stage, done, of, values: None,
    warn: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Samples the generator as a training's first steps would, fits the critic of the configuration, writes its file.

    The last sixth of the batches is not learned from; the weights are those after the pass that explains it best.

    Args:
        config: model, prompts, rollout, reward and critic; the rest is not read.
        out: the file to write.
        batches: of prompts.per_step prompts, at least 8.
        passes: over the other batches.
        report: called with "sampling" or "fitting", how much is done, of how much, and what was measured.
        warn: called with lines that the user should read.

    Returns:
        images, seconds, and the metrics critic/* of the held-out batches.

    Raises:
        UserError: whatever is wrong, in one line; nothing is written then.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from ..training.critic.critic import Critic
    from ..training.critic.file import write_critic
    from ..training.processes import process_count
    from ..training.tune import fingerprint

    for name, value, least in (("--batches", batches, LEAST_BATCHES), ("--passes", passes, 1)):
        if value < least:
            raise ConfigError(f"{name}: {value} is not allowed; at least {least}")
    if out.exists():
        raise ConfigError(f"--out: {out} is there already; a critic's file is never overwritten")
    if process_count() > 1:
        raise ConfigError("fit-critic runs in one process; start it without torchrun or accelerate")
    parts = prepare(with_section(critic_config(config), "train", trackers=()))
    AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=config.train.precision)
    model = parts.model.to(accelerator.device)
    began = time.perf_counter()
    critic = Critic(
        parts.config, model, accelerator=accelerator, advantage=parts.advantage, warn=warn
    )
    mark = fingerprint(model)
    sampled = _sampled(parts, critic, batches, report)
    held = max(3, batches // HELD)
    measured = _fitted(critic, sampled[:-held], sampled[-held:], passes, report)
    for batch in sampled:
        critic.replay.add(batch)
    if not measured["critic/weight"]:
        told, error = critic.trust.told()
        warn(
            f"beyond their prompts the critic explains {told:.3g} of {held} held-out batches, not above its standard error "
            f"{error:.3g}; a run that begins with it begins as without"
        )
    measured |= {"images": sum(batch.rewards.numel() for batch in sampled)}
    measured |= {"seconds": round(time.perf_counter() - began, 1)}
    write_critic(out, critic, parts.config, model=mark, measured=measured)
    return measured


def fitted_critic(config: Config, file: CriticFile, model: Any) -> Critic:
    """The critic of a file on a generator, on its device; for measuring.

    Raises:
        ConfigError: it was fitted to other weights.
    """
    from accelerate import Accelerator

    from ..training.critic.critic import Critic
    from ..training.tune import fingerprint

    file.require_model(fingerprint(model))
    critic = Critic(
        config, model, accelerator=Accelerator(), advantage=config.advantage.function, warn=print
    )
    critic.load(file.state, f"critic.file: {file.path}")
    return critic


def _sampled(parts: Parts, critic: Critic, count: int, report: Report) -> list[Batch]:
    """So many batches as the critic learns from them; prompts and noise are no training's."""
    from ..prompts.batches import PromptBatches
    from ..rollout.sampling import CRITIC, derive_seed
    from ..training.collect import sample_together
    from ..training.critic.replay import Batch

    config = parts.config
    order, seed = config.prompts, config.train.seed
    batches = PromptBatches(
        parts.prompts,
        per_step=order.per_step,
        seed=derive_seed(CRITIC, order.seed),
        balance=order.balance,
    )
    found = []
    for number in range(count):
        rollout = sample_together(
            batches.batch(number),
            derive_seed(CRITIC, seed, number, 0, 0),
            config=config,
            sampler=critic.model,
            needs=(),
            accelerator=critic.accelerator,
        )
        rewards, _ = parts.reward(rollout.images, rollout.prompts)
        found.append(Batch.of(rollout, critic.scaled(rewards)))
        if (number + 1) % REPORTED == 0 or number + 1 == count:
            report("sampling", number + 1, count, {"reward": float(rewards.mean())})
    return found


def _fitted(
    critic: Critic, learned: list[Batch], held: list[Batch], passes: int, report: Report
) -> dict[str, float]:
    """Fits the critic, leaves it with the best weights and the trust that they earn; returns the metrics."""
    from functools import reduce

    import torch

    from ..rollout.sampling import CRITIC, derive_seed
    from ..training.critic.replay import Batch
    from ..training.critic.values import Trust

    whole = reduce(Batch.joined, learned)
    per_step, seed = len(held[0]), critic.config.train.seed
    best, least = None, float("inf")
    for turn in range(passes):
        draw = torch.Generator().manual_seed(derive_seed(CRITIC, seed, turn, 1))
        order = torch.randperm(len(whole), generator=draw).split(per_step)
        for groups in order:
            critic.update(whole.select(groups.tolist()))
        trust = Trust(critic.settings.window)
        error = 0.0
        for batch in held:
            values, rewards = critic.values(batch)
            trust.add(values, rewards, batch.rewards.shape[1])
            error += float((values - rewards[:, None]).square().sum())
        told = {"explained": float(trust.explained().mean()), "weight": trust.weight}
        report("fitting", turn + 1, passes, told)
        if error < least:
            weights = {n: p.detach().clone() for n, p in critic.network.trained().items()}
            best, least = (weights, trust), error
    assert best is not None
    weights, critic.trust = best
    with torch.no_grad():
        for name, parameter in critic.network.trained().items():
            parameter.copy_(weights[name])
    measured: dict[str, float] = critic.trust.metrics()
    return measured
