"""The policy whose credit is measured, and what passes of it and of its reference tell. Samples and updates nothing.

Shapes: P prompts, G samples of each, B = P*G samples, T image tokens.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .config import Config
from .interfaces import Condition, Rollout
from .update import POLICY_STATISTICS


@dataclass(frozen=True)
class Policy:
    """A generator, how it is guided, and what it is compared with.

    Attributes:
        model: the generator.
        reference: the frozen model that its run began from, or the model itself where it has left nothing yet; None
            where no credit asks for one.
        form: guided or conditional, as `loss.policy` has it.
        cfg_scale, temperature: of the guided distribution.
        batch_size: most samples in one pass, but at least a group; None = all.
    """

    model: Any
    reference: Any | None
    form: str
    cfg_scale: float
    temperature: float
    batch_size: int | None = None

    @classmethod
    def of(cls, config: Config, model: Any, reference: Any | None) -> Policy:
        """The policy that a configuration trains."""
        rollout = config.rollout
        settings = (rollout.cfg_scale, rollout.temperature, rollout.batch_size)
        return cls(model, reference, config.loss.policy, *settings)

    def batch_prompts(self, rollout: Rollout) -> int:
        """How many prompts of a rollout one pass takes."""
        return max(1, (self.batch_size or len(rollout)) // rollout.group_size)

    @torch.no_grad()
    def fields(self, names: Collection[str], rollout: Rollout) -> dict[str, Tensor]:
        """The fields of an update, as training takes them: {name: (B, T)} for names out of UPDATE_FIELDS in credit.py.

        The negatives are those of the rollout's prompts.
        """
        if not names:
            return {}
        size, count = rollout.group_size, self.batch_prompts(rollout)
        prompts = rollout.prompts[::size]
        both = self.form == "guided" and self.cfg_scale != 1
        negatives = [p.negative for p in prompts] if both else None
        condition = self.model.condition([p.text for p in prompts], negatives)
        parts = []
        for start in range(0, len(prompts), count):
            index = torch.arange(start, min(start + count, len(prompts)))
            tokens = rollout.tokens[start * size : (start + count) * size]
            parts.append(self._pass(names, condition.select(index.to(tokens.device)), tokens))
        return {name: torch.cat([part[name] for part in parts]) for name in names}

    def _pass(
        self, names: Collection[str], condition: Condition, tokens: Tensor
    ) -> dict[str, Tensor]:
        taken = "guided_logprobs" if self.form == "guided" else "logprobs"
        statistics = POLICY_STATISTICS[self.form] | {"policy_logprobs": taken}
        own = {name: statistics[name] for name in names if name != "ref_logprobs"}
        found: dict[str, Tensor] = {}
        if own:
            frozen = None
            if "hellinger" in own:
                assert self.reference is not None
                frozen = self.reference.reference(condition, tokens)
            seen = self._statistics(self.model, condition, tokens, own.values(), frozen)
            found = {name: seen[statistic] for name, statistic in own.items()}
        if "normalized_entropy" in found:
            found["normalized_entropy"] /= math.log(self.model.codebook_size)
        if "ref_logprobs" in names:
            asked = self._statistics(self.reference, condition, tokens, [taken])
            found["ref_logprobs"] = asked[taken]
        return found

    def _statistics(
        self,
        model: Any,
        condition: Condition,
        tokens: Tensor,
        want: Collection[str],
        reference: Any = None,
    ) -> dict[str, Tensor]:
        found: dict[str, Tensor] = model(
            condition,
            tokens,
            want=list(dict.fromkeys(want)),
            reference=reference,
            cfg_scale=self.cfg_scale,
            temperature=self.temperature,
        )
        return found
