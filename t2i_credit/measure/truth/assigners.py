"""What a truth measurement compares: credit assigners by name, and baselines that any credit must beat. Judges none.

Shapes: B samples, T = H*W image tokens in raster order.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...config.files import key_value
from ...config.schema import parse_config
from ...credit.entry import CreditEntry
from ...credit.fields import GROUP_FIELDS, UPDATE_FIELDS, rollout_fields
from ...credit.table import CREDIT
from ...errors import ConfigError
from ...interfaces import Rollout
from ...training.policy import Policy
from ...yaml_text import parse_yaml

BASELINES = ("uniform", "random", "entropy", "centre")
_KEPT = frozenset(f.name for f in fields(Rollout))


@dataclass(frozen=True)
class Assigner:
    """One credit entry under given parameters.

    Attributes:
        name: as `--credit` takes it: "guidance_contrast,kind=gain".
        entry, params: of the credit table.
    """

    name: str
    entry: CreditEntry
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs(self) -> frozenset[str]:
        """The fields that it reads, see credit/fields.py."""
        return self.entry.fields_needed(**self.params)

    def __call__(self, rollout: Rollout, advantages: Tensor, policy: Policy) -> Tensor:
        """(B, T) credit of whole groups, row mean 1; `policy` drew them."""
        return self.assigned(rollout, advantages, policy)[0]

    def assigned(
        self, rollout: Rollout, advantages: Tensor, policy: Policy
    ) -> tuple[Tensor, Tensor]:
        """The credit, and the token advantages that the loss takes, (B, T) each."""
        codebook, grid = policy.model.codebook, policy.model.grid
        found = rollout_fields(self.needs, rollout, advantages, codebook=codebook, grid=grid)
        found |= policy.fields(self.needs & UPDATE_FIELDS, rollout)
        credit = self.entry.assign(found, rollout.mask, advantages, **self.params)
        rows = rollout.mask, advantages, self.params
        return credit, self.entry.token_advantages(found, credit, *rows)


def parse_assigner(
    text: str, *, has_left: bool = False, has_critic: bool = False, has_map: bool = False
) -> Assigner:
    """`NAME[,key=value...]`, NAME out of the credit table or package.module:function.

    Args:
        has_left: whether the policy has left its reference, as that of a run has.
        has_critic: whether there is one that says the values of prefixes.
        has_map: whether a part of the reward says where it looked.

    Raises:
        ConfigError: an unknown name, key or value, or one that cannot be measured on such a policy.
    """
    where = f"--credit {text}"
    name, *rest = text.split(",")
    section: dict[str, Any] = {"name": name}
    for part in rest:
        key, value = key_value(part)
        if value is None:
            raise ConfigError(f"{where}: {part!r}: write key=value, such as kind=gain")
        section[key] = parse_yaml(value.encode(), where, lines=False)
    mapped = {"geneval": {"map": "objects"}}  # whether it is so here, `has_map` says
    credit = parse_config({"credit": section, "reward": mapped}, where=where).credit
    assigner = Assigner(text, credit.entry, credit.params)
    if problem := _unmeasurable(assigner, has_left, has_critic, has_map):
        raise ConfigError(f"{where}: {problem}")
    return assigner


def default_assigners(
    *, has_left: bool = False, has_critic: bool = False, has_map: bool = False
) -> tuple[list[Assigner], dict[str, str]]:
    """Every entry of the credit table but `uniform`, once for each choice of its `kind`; and those left out: why."""
    found, left_out = [], {}
    for name, entry in CREDIT.items():
        if entry.even:
            continue
        kinds = typing.get_args(typing.get_type_hints(entry.assign).get("kind"))
        usual = inspect.signature(entry.assign).parameters["kind"].default if kinds else None
        for kind in kinds or [usual]:
            label = name if kind == usual else f"{name},kind={kind}"
            assigner = Assigner(label, entry, {"kind": kind} if kinds else {})
            if problem := _unmeasurable(assigner, has_left, has_critic, has_map):
                left_out[label] = problem
            else:
                found.append(assigner)
    return found, left_out


def _unmeasurable(
    assigner: Assigner, has_left: bool, has_critic: bool, has_map: bool
) -> str | None:
    if "value_advantage" in assigner.needs and not has_critic:
        return "reads a critic's values; give --like shapes/value critic.file=FILE"
    if "reward_map" in assigner.needs and not has_map:
        return "no part of the reward says where it looked; set reward.NAME.map"
    if "hellinger" in assigner.needs and not has_left:
        return "the policy still equals its reference, so this credit is uniform; measure a run (run@STEP)"
    if missing := sorted(assigner.needs - _KEPT - GROUP_FIELDS - UPDATE_FIELDS):
        return f"needs {', '.join(missing)}, which a rollout does not keep"
    return None


def rollout_needs(assigners: Sequence[Assigner]) -> frozenset[str]:
    """The rollout fields that any of them reads, or that a group's fields are made of."""
    needs = frozenset().union(*(assigner.needs for assigner in assigners))
    made_of = {"guided_entropy"} if "entropy_gradient" in needs else set()
    return (needs - GROUP_FIELDS - UPDATE_FIELDS) | made_of


def scores_of(
    assigners: Sequence[Assigner],
    rollout: Rollout,
    advantages: Tensor,
    policy: Policy,
    *,
    seed: int,
) -> dict[str, Tensor]:
    """{name: (B, T) float32 on the CPU, at least 0}: the baselines first, then every assigner.

    `entropy` is that of the positive branch, `random` is uniform noise, `centre` falls linearly with the distance
    from the image centre (a baseline of pictures; no credit may know positions).
    """
    ones = torch.ones(rollout.tokens.shape)
    found = {
        "uniform": ones,
        "random": torch.rand(ones.shape, generator=torch.Generator().manual_seed(seed)),
        "entropy": rollout.entropy.cpu(),
        "centre": centre_closeness(policy.model.grid).expand_as(ones),
    }
    for assigner in assigners:
        found[assigner.name] = assigner(rollout, advantages, policy).cpu()
    return found


def centre_closeness(grid: tuple[int, int]) -> Tensor:
    """(T,) in [0, 1], 1 minus the distance of a token's centre from the image centre, in half diagonals."""
    height, width = grid
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    distance = np.hypot(rows / height - 0.5, columns / width - 0.5) / np.hypot(0.5, 0.5)
    return torch.from_numpy(1.0 - distance).float().flatten()
