"""A critic beside a training: values of what was sampled, how far they are believed, and what it learns of them.

It is believed as far as it explained images that it had not learned from, and its logit stands beside that of the other
samples' mean reward, so that without knowledge it is the group baseline. Each process takes its share of the prompts.
Shapes: P prompts, G samples each, B = P*G samples, T image tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from ...config.schema import Config
from ...errors import RunError
from ...interfaces import Rollout
from ...rollout.sampling import CRITIC, derive_seed
from ..policy import samples_in_a_pass
from ..processes import gather_rows, micro_batches, my_share, sharing_processes
from .network import ValueNetwork
from .replay import Batch, Replay
from .values import Trust, advantage_unit, others_logit

MAX_GRAD_NORM = 1.0


class Critic:
    """A value network, its optimizer, what it has seen.

    Args:
        config: the section `critic`, and how large a pass may be.
        model: the generator, without accelerate's wrapping.
        accelerator: precision, and which processes there are.
        advantage: rewards (B,), group size to advantages (B,).
        warn: called with a line that the user should read.
    """

    def __init__(
        self,
        config: Config,
        model: Any,
        *,
        accelerator: Accelerator,
        advantage: Callable[[Tensor, int], Tensor],
        warn: Callable[[str], None] = print,
    ) -> None:
        self.config, self.settings = config, config.critic
        self.model, self.accelerator = model, accelerator
        self.advantage, self.warn = advantage, warn
        seed = derive_seed(CRITIC, config.train.seed)
        self.network = ValueNetwork(model, self.settings, seed=seed)
        self.optimizer = torch.optim.AdamW(
            self.network.trained().values(), lr=self.settings.step_size, weight_decay=0.0
        )
        self.replay = Replay(self.settings.replay)
        self.trust = Trust(self.settings.window)
        self._told = False

    # What it says

    @torch.no_grad()
    def valued(self, rollout: Rollout, rewards: Tensor) -> Rollout:
        """A rollout of whole groups with `values` and `value_advantage`.

        Args:
            rewards: (B,).
        """
        size = rollout.group_size
        prompts = len(rollout) // size
        mine = my_share(prompts, self.accelerator)
        scaled = self.scaled(rewards)
        batch = Batch.of(rollout, scaled).select(range(prompts)[mine])
        logits = gather_rows(torch.cat([*self._logits(batch)]), prompts, self.accelerator)
        baseline = others_logit(scaled, size).to(logits.device)
        values = self._rewards(torch.sigmoid(baseline[:, None] + logits))
        unit = advantage_unit(self.advantage(rewards, size), rewards, size).to(logits.device)
        moved = values.diff(dim=1) * (unit[:, None] * self.trust.weight)
        return replace(rollout, values=values, value_advantage=moved)

    @torch.no_grad()
    def values(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Values (B, T + 1) and rewards (B,), in units of reward, of groups as this process has them; on the CPU."""
        targets, baseline = self._targets(batch)
        logits = torch.cat([*self._logits(batch)])
        values = torch.sigmoid(baseline[:, None] + logits)
        return self._rewards(values).cpu(), self._rewards(targets).cpu()

    def scaled(self, rewards: Tensor) -> Tensor:
        """Rewards (B,) as shares of the way from critic.least to critic.most; the user is told once of others."""
        least, most = self.settings.least, self.settings.most
        found = (rewards.float() - least) / (most - least)
        if not self._told and bool(((found < 0) | (found > 1)).any()):
            self._told = True
            reached = f"{float(rewards.min()):.3g} to {float(rewards.max()):.3g}"
            self.warn(
                f"critic.least, critic.most: rewards reach from {reached}, and the critic takes those outside of "
                f"{least:g} to {most:g} for its ends"
            )
        return found.clamp(0.0, 1.0)

    # What it learns

    def learn(self, step: int, rollout: Rollout, rewards: Tensor) -> dict[str, float]:
        """Measures what `valued` said of a rollout, then learns from it and from earlier ones; returns metrics.

        Args:
            step: counted from 1, for the noise.
            rollout: whole groups, with `values` of before.
            rewards: (B,).
        """
        assert rollout.values is not None
        scaled = self.scaled(rewards)
        self.trust.add(rollout.values.cpu(), self._rewards(scaled).cpu(), rollout.group_size)
        self.replay.add(Batch.of(rollout, scaled))
        groups = len(self.replay.batches[-1])
        losses = []
        for turn in range(self.settings.updates):
            seed = derive_seed(CRITIC, self.config.train.seed, step, turn)
            batch = self.replay.draw(groups, seed) if turn else self.replay.batches[-1]
            losses.append(self.update(batch))
        found = {"critic/images": float(self.replay.images), **self.trust.metrics()}
        if losses:
            found["critic/loss"] = sum(losses) / len(losses)
        return found

    def update(self, batch: Batch) -> float:
        """An optimizer step on groups, shared out over the processes; returns the mean cross-entropy, nats."""
        sharing = sharing_processes(len(batch), self.accelerator)
        mine = batch.select(range(len(batch))[my_share(len(batch), self.accelerator)])
        targets, baseline = self._targets(mine)
        count = batch.rewards.numel() * (batch.tokens.shape[2] + 1)
        self.optimizer.zero_grad()
        total, first = torch.zeros((), device=self.model.device), 0
        for logits in self._logits(mine):
            rows = slice(first, first + len(logits))
            first += len(logits)
            wanted = targets[rows, None].expand_as(logits)
            loss = F.binary_cross_entropy_with_logits(
                baseline[rows, None] + logits, wanted, reduction="sum"
            )
            (loss / count).backward()
            total += loss.detach() / count
        trained = list(self.network.trained().values())
        if sharing > 1:
            for parameter in trained:
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, reduction="sum")
            total = self.accelerator.reduce(total, reduction="sum")
        torch.nn.utils.clip_grad_norm_(trained, MAX_GRAD_NORM)
        self.optimizer.step()
        return float(total)

    def _targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Rewards and the baseline's logit (B,) each, on the model's device."""
        targets = batch.rewards.flatten()
        baseline = others_logit(targets, batch.rewards.shape[1])
        return targets.to(self.model.device), baseline.to(self.model.device)

    def _logits(self, batch: Batch) -> Iterator[Tensor]:
        """f of all samples, (n, T + 1) at a time: as many as fit a pass of the training. The network is at work until the
        next ones are asked for."""
        size, device = batch.tokens.shape[1], self.model.device
        tokens = batch.tokens.flatten(0, 1).long().to(device)
        condition = self.model.condition(batch.texts, None)
        most = samples_in_a_pass(self.config, self.model.grid, len(tokens))
        for rows in micro_batches(range(len(tokens)), most, size):
            places = torch.tensor(rows, device=device)
            owners = places // size
            if len(rows) % size == 0:  # whole groups, whose prompts run once
                owners = owners[::size]
            with self.network.at_work():
                with self.accelerator.autocast():
                    logits = self.network(condition.select(owners), tokens[places])
                yield logits

    def _rewards(self, shares: Tensor) -> Tensor:
        """Shares of the way to rewards."""
        return self.settings.least + shares * (self.settings.most - self.settings.least)

    # What is kept of it

    def weights(self) -> dict[str, Any]:
        """Network and optimizer, as they are."""
        return {
            "network": {name: p.detach() for name, p in self.network.trained().items()},
            "optimizer": self.optimizer.state_dict(),
        }

    def state(self) -> dict[str, Any]:
        """All else; later steps do not change what is returned."""
        return {"replay": self.replay.state(), "trust": self.trust.state(), "told": self._told}

    def load(self, state: Mapping[str, Any], where: str) -> None:
        """Takes up `state`, and `weights` with or without optimizer.

        Raises:
            RunError: they do not fit this network.
        """
        trained, saved = self.network.trained(), state["network"]
        shapes = {name: tuple(p.shape) for name, p in trained.items()}
        there = {name: tuple(tensor.shape) for name, tensor in saved.items()}
        if shapes != there:
            other = sorted(set(shapes.items()) ^ set(there.items()))[0][0]
            raise RunError(f"{where}: {other} does not fit the section critic of this run")
        with torch.no_grad():
            for name, parameter in trained.items():
                parameter.copy_(saved[name])
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.step_size
        self.replay.load(state["replay"])
        self.trust.load(state["trust"])
        self._told = state.get("told", False)
