"""What a method of credit declares, and what the loss takes of it.

Shapes: B samples, T image tokens; mask (B, T) bool, True = counts in the loss.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import T2ICreditWarning
from ..interfaces import plugin_errors, plugin_values

MEAN_ERROR = 1e-3  # by which a mean weight may miss 1 before the user is warned


@torch.no_grad()
def kl_weight(credit: Tensor, mask: Tensor) -> Tensor:
    """0.5 + 0.5 clamp(2 - 2 credit, 0, 1): half the KL penalty from credit 1 upwards.

    Source: the published trainer of 2605.29198. (B, T) and mask to (B, T) float32 in [0.5, 1], 0
    off the mask.
    """
    return torch.where(mask, 0.5 + 0.5 * (2 - 2 * credit.float()).clamp(0.0, 1.0), 0.0)


@torch.no_grad()
def token_advantages(advantages: Tensor, credit: Tensor) -> Tensor:
    """advantages[:, None] * credit: (B,) and (B, T) to (B, T) float32."""
    return advantages.float()[:, None] * credit.float()


def _kl_weights_of_credit(
    fields: Mapping[str, Tensor], credit: Tensor, mask: Tensor, parameters: Mapping[str, Any]
) -> Tensor:
    return kl_weight(credit, mask)


def _times_credit(
    fields: Mapping[str, Tensor],
    credit: Tensor,
    mask: Tensor,
    advantages: Tensor,
    parameters: Mapping[str, Any],
) -> Tensor:
    return token_advantages(advantages, credit)


@dataclass(frozen=True, kw_only=True)
class CreditEntry:
    """One way to assign credit.

    Attributes:
        assign: `(fields, mask, advantages, **keyword-only parameters) -> (B, T)`; the parameters
            and their defaults are the configuration schema, `fields` holds at least what `needs`
            names, each (B, T).
        description: one line, what makes a token important.
        paper: where it comes from.
        needs: names out of ROLLOUT_FIELDS, GROUP_FIELDS and UPDATE_FIELDS, or a function of the
            parameters that gives them.
        needs_reference: whether a frozen reference model must be held.
        kl_weights: `(fields, credit, mask, parameters) -> (B, T)`, the factors on the KL term under
            `loss.kl_weight: credit`.
        token_advantages: `(fields, credit, mask, advantages, parameters) -> (B, T)`, what the loss takes: advantage
            times credit, unless a method adds something to the advantage.
        needs_kl_weights: whether a KL term without these factors is another method.
        even: whether every token of a sample gets the same.
        refresh: why `credit.refresh` is refused; "" = it is not.
    """

    assign: Callable[..., Tensor]
    description: str
    paper: str
    needs: frozenset[str] | Callable[[Mapping[str, Any]], frozenset[str]] = frozenset()
    needs_reference: bool = False
    kl_weights: Callable[..., Tensor] = _kl_weights_of_credit
    token_advantages: Callable[..., Tensor] = _times_credit
    needs_kl_weights: bool = False
    even: bool = False
    refresh: str = ""

    @property
    def has_own_kl_weights(self) -> bool:
        """Whether the factors on the KL term are made of something else than the credit."""
        return self.kl_weights is not _kl_weights_of_credit

    def fields_needed(self, **parameters: Any) -> frozenset[str]:
        """What `assign` reads under these parameters (those left out have their defaults)."""
        return self.needs(parameters) if callable(self.needs) else self.needs


def as_entry(plugin: Any) -> CreditEntry:
    """A credit entry; a user's bare function declares nothing and gets the fields that every rollout keeps."""
    if isinstance(plugin, CreditEntry):
        return plugin
    return CreditEntry(
        assign=plugin,
        description=(plugin.__doc__ or "a function of the user's").splitlines()[0],
        paper="",
        needs=frozenset({"logprobs", "negative_logprobs", "entropy"}),
    )


def checked(entry: CreditEntry, who: str) -> CreditEntry:
    """A user's entry, whose credit is taken as tensor, array or list, refused where it is none, and doubted once.

    Args:
        entry: returns (B, T).
        who: what to call it, such as "credit my_credit:surprise".

    Returns:
        An entry that raises TrainingError for another type or shape, or a value that is not finite, and warns of a
        negative weight and of a row mean over the mask other than 1.
    """
    told: set[str] = set()

    @functools.wraps(entry.assign)
    def assign(
        fields: Mapping[str, Tensor], mask: Tensor, advantages: Tensor, **parameters: Any
    ) -> Tensor:
        with plugin_errors(who):
            found = entry.assign(fields, mask, advantages, **parameters)
        credit = plugin_values(found, tuple(mask.shape), who, mask=mask).to(mask.device)
        for doubt, line in _doubts(credit, mask).items():
            if doubt not in told:
                told.add(doubt)
                warnings.warn(f"{who}: {line}", T2ICreditWarning, stacklevel=2)
        return credit

    return replace(entry, assign=assign)


def _doubts(credit: Tensor, mask: Tensor) -> dict[str, str]:
    """{what is unusual about credit (B, T): a line}."""
    found = {}
    if bool((credit < 0).any()):
        lowest = float(credit.min())
        found["negative"] = (
            f"a token has weight {lowest:.3g}; below 0 its advantage is turned round"
        )
    counted = mask.sum(1)
    means = (credit.sum(1) / counted.clamp(min=1))[counted > 0]
    if len(means) and float(off := (means - 1).abs().max()) > MEAN_ERROR:
        mean = float(means[(means - 1).abs() == off][0])
        found["mean"] = (
            f"the mean weight of a sample's tokens is {mean:.3g}, not 1; the learning rate is scaled by it"
        )
    return found
