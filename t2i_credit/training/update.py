"""From one scored rollout to optimizer steps: credit, policy loss, KL term, backward pass. Samples and writes nothing.

Shapes: P prompts, G samples each, B = P*G samples, T image tokens; N = the samples of a micro-batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ..config.schema import Config
from ..credit.entry import CreditEntry
from ..credit.fields import GROUP_FIELDS, UPDATE_FIELDS, rollout_fields
from ..errors import TrainingError
from ..interfaces import Rollout
from ..losses import policy_loss
from .metrics import credit_metrics
from .policy import Policy, samples_in_a_pass
from .processes import (
    gather_rows,
    micro_batches,
    my_micro_batches,
    reduce_metrics,
    sharing_processes,
    whole,
)

_LARGEST = {"ratio_max"}  # metrics of which a step keeps the largest and not the mean


@dataclass(frozen=True)
class RolloutCredit:
    """What a rollout alone tells of its credit.

    Attributes:
        known: {name: (B, T)} of the credit's fields that no update changes.
        weights: (B, T) credit, None if the method needs the policy of the update for it.
    """

    known: dict[str, Tensor]
    weights: Tensor | None


class PolicyUpdate:
    """The update of a configuration.

    Args:
        config: what to do.
        model: the prepared model (its `__call__` is the training pass).
        sampler: the same model without accelerate's wrapping.
        reference: the frozen model, or None.
        credit: the entry of the credit table.
        optimizer: the prepared optimizer; its learning rate is the caller's business.
        accelerator: backward passes, precision, gradient clipping.
    """

    def __init__(
        self,
        config: Config,
        *,
        model: Any,
        sampler: Any,
        reference: Any | None,
        credit: CreditEntry,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.model, self.sampler = config, model, sampler
        self.credit_entry, self.optimizer, self.accelerator = credit, optimizer, accelerator
        self.policy = Policy.of(
            config, model, reference, sampler=sampler, rounding=accelerator.autocast
        )
        self.needs = credit.fields_needed(**config.credit.params)
        self.held = config.loss.kl_coef > 0 or "ref_logprobs" in self.needs
        refresh = config.credit.refresh
        self.renews = refresh or bool(self.needs & UPDATE_FIELDS)
        # the credit's fields that the model computes anew at each update, and its names for them; what needs a
        # negative branch that the policy does not run is computed apart, so that no gradient runs through it
        names = self.policy.statistics
        renewed = (self.needs if refresh else self.needs & UPDATE_FIELDS) - GROUP_FIELDS
        fresh = {name: names.get(name, name) for name in sorted(renewed - {"ref_logprobs"})}
        self.apart = {n: s for n, s in fresh.items() if self.policy.takes_another_branch(s)}
        self.in_pass = {n: s for n, s in fresh.items() if n not in self.apart}

    @torch.no_grad()
    def credit(self, rollout: Rollout, advantages: Tensor) -> RolloutCredit:
        """The credit of a rollout, as far as no pass of the policy is needed for it."""
        known = self._known(rollout, advantages)
        if self.needs & UPDATE_FIELDS:
            return RolloutCredit(known, None)
        return RolloutCredit(known, self._assign(rollout, known, advantages))

    def __call__(
        self, step: int, rollout: Rollout, advantages: Tensor, credit: RolloutCredit
    ) -> dict[str, float]:
        """The optimizer steps on one rollout; returns the means of their metrics.

        Args:
            step: counted from 1, for messages.
            rollout: B samples in whole groups.
            advantages: (B,).
            credit: what `credit` found.

        Raises:
            TrainingError: a loss or gradient is not finite, or sampling and training disagree; the model is as
                it was before the optimizer step.
        """
        settings = self.config.loss
        updates = settings.updates_per_rollout
        stored = getattr(rollout, self.policy.logprobs)
        old = stored
        if updates > 1 and settings.old == "recompute":
            old = self._recomputed(rollout, stored)
        known, rolled = credit.known, credit.weights
        totals: dict[str, float] = {}
        common: dict[str, float] = {}  # known to every process alike
        prompts = len(rollout) // rollout.group_size
        sharing = sharing_processes(prompts, self.accelerator)
        for update in range(updates):
            self.optimizer.zero_grad()
            differences = []
            for rows, final, spare in self._my_micro_batches(rollout):
                with nullcontext() if final else self.accelerator.no_sync(self.model):
                    asked = {"policy": self.policy.logprobs} | self.in_pass
                    found = self.policy.ask(rollout, rows, asked)
                    logprobs = found.pop("policy")
                    if not spare:
                        differences.append((logprobs.detach() - stored[rows]).abs())
                    fields = self._fields(rollout, rows, known, found, reference=self.held)
                    part = rolled[rows] if rolled is not None and not self.renews else None
                    if part is None:
                        part = self._assign(rollout, fields, advantages, rows)
                    before = logprobs.detach() if updates == 1 else old[rows]
                    loss, metrics = self._loss(
                        rollout, rows, logprobs, before, advantages, part, fields
                    )
                    _require_finite(step, "loss", loss)
                    # gradients are averaged over processes, and these are parts of a sum
                    self.accelerator.backward(loss * (0 if spare else sharing))
                if spare:
                    continue
                weight = len(rows) / len(rollout) / updates
                values: dict[str, Any] = metrics | credit_metrics(part)
                if self.renews and rolled is not None:
                    values["credit_shift"] = (part - rolled[rows]).abs().mean()
                _collect(totals, values, weight)
                _collect(totals, {"loss": float(loss.detach())}, 1 / updates)
            if update == 0:
                agreement = gather_rows(torch.cat(differences), prompts, self.accelerator)
                common |= self._agreement(step, agreement)
            limit = self.config.optim.max_grad_norm or math.inf
            norm = whole(self.accelerator.clip_grad_norm_(self.model.parameters(), limit))
            _require_finite(step, "gradient", norm)
            _collect(common, {"grad_norm": float(norm)}, 1 / updates)
            self.optimizer.step()
        return reduce_metrics(totals, _LARGEST, prompts, self.accelerator) | common

    def credit_of(self, rollout: Rollout, advantages: Tensor) -> Tensor:
        """(B, T) credit of whole groups under the policy as it is now."""
        return self.assigned(rollout, advantages)[0]

    @torch.no_grad()
    def assigned(self, rollout: Rollout, advantages: Tensor) -> tuple[Tensor, Tensor]:
        """Credit and token advantages, (B, T) each, of whole groups under the policy as it is now."""
        fields = self._fields_now(rollout, advantages)
        credit = self._assign(rollout, fields, advantages)
        return credit, self._token_advantages(fields, credit, rollout.mask, advantages)

    def _fields_now(self, rollout: Rollout, advantages: Tensor) -> dict[str, Tensor]:
        """{name: (B, T)} of all that the credit reads."""
        known = self._known(rollout, advantages)
        if not self.renews:
            return known
        asks = "ref_logprobs" in self.needs
        parts = []
        size = self._size(rollout)
        for samples in micro_batches(range(len(rollout)), size, rollout.group_size):
            rows = torch.tensor(samples, device=self.sampler.device)
            found = self.policy.ask(rollout, rows, self.in_pass)
            parts.append(self._fields(rollout, rows, known, found, reference=asks))
        return {name: torch.cat([part[name] for part in parts]) for name in self.needs}

    def _known(self, rollout: Rollout, advantages: Tensor) -> dict[str, Tensor]:
        """{name: (B, T)} of the credit's fields that no update changes."""
        codebook, grid = self.sampler.codebook, self.sampler.grid
        return rollout_fields(self.needs, rollout, advantages, codebook=codebook, grid=grid)

    @torch.no_grad()
    def _fields(
        self,
        rollout: Rollout,
        rows: Tensor,
        known: Mapping[str, Tensor],
        found: Mapping[str, Tensor],
        *,
        reference: bool,
    ) -> dict[str, Tensor]:
        """{name: (N, T)} of the samples at `rows`: what was known, what the policy's pass found, and the rest."""
        fields = {name: value[rows] for name, value in known.items()}
        fields |= {name: value.detach() for name, value in found.items()}
        fields |= self.policy.ask(rollout, rows, self.apart)
        if reference:
            names = {"ref_logprobs": self.policy.logprobs}
            fields |= self.policy.ask(rollout, rows, names, of_reference=True)
        return fields

    def _assign(
        self,
        rollout: Rollout,
        fields: Mapping[str, Tensor],
        advantages: Tensor,
        rows: Tensor | slice = slice(None),
    ) -> Tensor:
        """(N, T) credit of the samples at `rows`, whose fields these are."""
        needed = {name: fields[name] for name in self.needs}
        assign, params = self.credit_entry.assign, self.config.credit.params
        return assign(needed, rollout.mask[rows], advantages[rows], **params)

    def _token_advantages(
        self, fields: Mapping[str, Tensor], credit: Tensor, mask: Tensor, advantages: Tensor
    ) -> Tensor:
        params = self.config.credit.params
        return self.credit_entry.token_advantages(fields, credit, mask, advantages, params)

    def _loss(
        self,
        rollout: Rollout,
        rows: Tensor,
        logprobs: Tensor,
        old: Tensor,
        advantages: Tensor,
        credit: Tensor,
        fields: Mapping[str, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's share of the whole batch's loss."""
        settings, mask = self.config.loss, rollout.mask[rows]
        kl_weights = None
        if settings.kl_weight == "credit":
            params = self.config.credit.params
            kl_weights = self.credit_entry.kl_weights(fields, credit, mask, params)
        return policy_loss(
            logprobs,
            old,
            self._token_advantages(fields, credit, mask, advantages[rows]),
            mask,
            clip_low=settings.clip_low,
            clip_high=settings.clip_high,
            ratio=settings.ratio,
            aggregate=settings.aggregate,
            ref_logprobs=fields.get("ref_logprobs"),
            kl_coef=settings.kl_coef,
            kl_weights=kl_weights,
            kl_form=settings.kl_form,
            denominator=denominators(rollout)[settings.aggregate],
        )

    @torch.no_grad()
    def _recomputed(self, rollout: Rollout, stored: Tensor) -> Tensor:
        """(B, T) log-probs of the policy before the first update, by a training pass; of other processes' samples as stored."""
        old, names = stored.clone(), {"policy": self.policy.logprobs}
        for rows, _, _ in self._my_micro_batches(rollout):
            old[rows] = self.policy.ask(rollout, rows, names)["policy"]
        return old

    def _my_micro_batches(self, rollout: Rollout) -> Iterator[tuple[Tensor, bool, bool]]:
        """(rows, last, spare) of each micro-batch of this process's samples; see `my_micro_batches`."""
        size, together = self._size(rollout), self.config.train.sharding == "full"
        found = my_micro_batches(
            len(rollout), size, rollout.group_size, self.accelerator, together=together
        )
        for rows, last, spare in found:
            yield torch.tensor(rows, device=self.sampler.device), last, spare

    def _size(self, rollout: Rollout) -> int:
        """Most samples in one pass."""
        return samples_in_a_pass(self.config, self.sampler.grid, len(rollout))

    def _agreement(self, step: int, differences: Tensor) -> dict[str, float]:
        """Sampling and training must agree on the log-probs before the first update."""
        mean, largest = float(differences.mean()), float(differences.max())
        guard = self.config.loss.ratio_guard
        if guard is not None and not largest <= guard:
            raise TrainingError(
                f"step {step}: log-probs in training differ from those in sampling by up to {largest:.2g}, "
                f"loss.ratio_guard allows {guard:.2g} (raise it for bf16; null = off); no update was made"
            )
        return {"log_ratio_mean": mean, "log_ratio_max": largest}


def _collect(totals: dict[str, float], values: Mapping[str, Any], weight: float) -> None:
    for name, value in values.items():
        if name in _LARGEST:
            totals[name] = max(totals.get(name, -math.inf), float(value))
        else:
            totals[name] = totals.get(name, 0.0) + weight * float(value)


def _require_finite(step: int, what: str, value: Tensor) -> None:
    if not bool(torch.isfinite(value)):
        stopped = "stopped before the optimizer step"
        raise TrainingError(f"step {step}: the {what} is {float(value.detach())}; {stopped}")


def denominators(rollout: Rollout) -> dict[str, float]:
    """{aggregate: what the whole rollout's loss is divided by}, so that the losses of its micro-batches add up to it."""
    return {
        "token": float(rollout.mask.sum()),
        "sequence": float(len(rollout)),
        "constant": float(rollout.mask.numel()),
    }


def learning_rate(config: Config, step: int) -> float:
    """Of a step counted from 1: linear warm-up, then constant, or down to min_lr_fraction by line or cosine."""
    settings, total = config.optim, config.train.steps
    if step <= settings.warmup_steps:
        return settings.lr * step / settings.warmup_steps
    done = (step - settings.warmup_steps - 1) / max(1, total - settings.warmup_steps - 1)
    if settings.schedule == "constant":
        return settings.lr
    fall = 1 - done if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    floor = settings.min_lr_fraction
    return settings.lr * (floor + (1 - floor) * fall)
