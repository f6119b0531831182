"""Does the credit lie where the objects are, and does the negative prompt steer it there?

Steering: two-object prompts against a negative prompt that names one of the objects only. With "a red circle and a blue
square" against "a blue square" the circle is what only the positive prompt asks for, so credit should move onto the
circle's tokens. Shapes: B samples, T image tokens in raster order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...interfaces import Prompt, Rollout
from ...training.metrics import COVERAGE, Objects, auroc, mass_inside, object_tokens, pointing
from ...training.policy import Policy
from ..intervals import Numbers, change_interval, per_prompt, share_interval
from .assigners import Assigner, rollout_needs


def one_object_texts(prompt: Prompt) -> list[str] | None:
    """For "<front> A and B" the texts ["<front> A", "<front> B"] in the order of the record; None for other prompts."""
    clauses = prompt.spec["include"] if prompt.spec else []
    if len(clauses) != 2 or any(c.get("position") or c["count"] != 1 for c in clauses):
        return None
    first, joint, second = prompt.text.rpartition(" and ")
    nouns = [f"{c.get('color', '')} {c['class']}".strip() for c in clauses]
    if not joint or not first.endswith(nouns[0]) or not second.endswith(nouns[1]):
        return None
    front = first.removesuffix(nouns[0]).rstrip()
    front, _, article = front.rpartition(" ")
    if article not in ("a", "an") or clauses[0]["class"] == clauses[1]["class"]:
        return None
    return [first, f"{front} {second}".lstrip()]


@torch.no_grad()
def under_negatives(
    policy: Policy, rollout: Rollout, negatives: Sequence[str], needs: frozenset[str]
) -> Rollout:
    """The same tokens with what other negative prompts (one per group) think of them; images as they were."""
    size = rollout.group_size
    named = [replace(p, negative=negatives[b // size]) for b, p in enumerate(rollout.prompts)]
    rollout = replace(rollout, prompts=named)
    names = sorted({"logprobs", "negative_logprobs"} | needs)
    rows = torch.arange(len(rollout), device=rollout.tokens.device)
    parts = [
        policy.ask(rollout, some, {name: name for name in names})
        for some in rows.split(policy.batch_prompts(rollout) * size)
    ]
    columns: dict[str, Any] = {n: torch.cat([part[n] for part in parts]) for n in names}
    return replace(rollout, **columns)


def specificity(
    policy: Policy,
    rollout: Rollout,
    advantages: Tensor,
    objects: Objects,
    assigners: Sequence[Assigner],
    *,
    coverage: float = COVERAGE,
) -> dict[str, Any] | None:
    """AUROC of the credit for the object that the negative prompt lacks, each object of a pair in turn.

    Only samples that show both objects, with tokens of their own, are used.

    Returns:
        samples used, over both turns; per name: removed (AUROC for the object that the negative lacks, against all
        other tokens), named (AUROC for the object that it names) and apart (AUROC of the first's tokens against the
        second's alone), each [mean, low, high] over prompts. None where no prompt has two objects.
    """
    size = rollout.group_size
    texts = [one_object_texts(prompt) for prompt in rollout.prompts]
    rows = torch.tensor([b for b, found in enumerate(texts) if found], dtype=torch.long)
    if not len(rows):
        return None
    pairs = rollout.select(rows.to(rollout.tokens.device))
    advantages = advantages[rows.to(advantages.device)]
    kept = [objects[b] for b in rows.tolist()]
    both = [_tokens_of(policy.model.grid, pairs, kept, place, coverage) for place in (0, 1)]
    columns: dict[str, dict[str, list[Numbers]]] = {}
    used = 0
    for removed in (0, 1):
        # the negative names the other object alone
        negatives = [texts[b][1 - removed] for b in rows.tolist()[::size]]
        seen = under_negatives(policy, pairs, negatives, rollout_needs(assigners))
        alone = (both[removed] & ~both[1 - removed]).numpy()
        other = (both[1 - removed] & ~both[removed]).numpy()
        shown = alone.any(1) & other.any(1)
        used += int(shown.sum())
        for assigner in assigners:
            credit = assigner(seen, advantages, policy).cpu().numpy()
            aurocs = {
                "removed": auroc(credit, alone),
                "named": auroc(credit, other),
                "apart": auroc_within(credit, alone, alone | other),
            }
            for what, values in aurocs.items():
                turns = columns.setdefault(assigner.name, {}).setdefault(what, [])
                turns.append(per_prompt(values, size, shown))
    return {
        "samples": used,
        "assigners": {
            # of each prompt the mean of both turns, of one where the other is unknown
            name: {
                what: share_interval(per_prompt(np.stack(turns, 1).ravel(), len(turns)))
                for what, turns in row.items()
            }
            for name, row in columns.items()
        },
    }


def auroc_within(
    scores: NDArray[Any], on: NDArray[np.bool_], within: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """`auroc` of the tokens `on` among those `within`, row by row: (B,), nan where one side is empty."""
    rows = zip(scores, on, within, strict=True)
    return np.array([auroc(s[None, w], o[None, w])[0] if w.any() else np.nan for s, o, w in rows])


def _tokens_of(
    grid: tuple[int, int], rollout: Rollout, objects: Objects, place: int, coverage: float
) -> Tensor:
    """(B, T) bool: tokens on objects of the class that clause `place` of each prompt's record names."""
    classes = [prompt.spec["include"][place]["class"] for prompt in rollout.prompts]  # type: ignore[index]

    def named(sample: int, one: Mapping[str, Any]) -> bool:
        return bool(one["name"] == classes[sample])

    height, width = rollout.images.shape[-2:]
    return object_tokens(objects, grid, (height, width), keep=named, coverage=coverage)


def localisation(
    scores: Mapping[str, Tensor], on_object: Tensor, group_size: int, baselines: Sequence[str]
) -> dict[str, Any]:
    """AUROC, mass and pointing of every score, with 95% intervals over prompts.

    Args:
        scores: {name: (B, T)}, at least 0.
        on_object: (B, T) bool. Samples with no token on or no token off an object are left out.
        group_size: G.
        baselines: names out of `scores`; the AUROC of every other one is compared with theirs.

    Returns:
        samples used; area: share of tokens on objects; per name: auroc, mass (share of the score on objects),
        pointing, each [mean, low, high], and auroc_ahead {baseline: [difference, low, high]}.
    """
    inside = on_object.numpy()
    used = inside.any(1) & ~inside.all(1)

    column = partial(per_prompt, group_size=group_size, used=used)
    aurocs = {name: column(auroc(score.numpy(), inside)) for name, score in scores.items()}
    found: dict[str, Any] = {}
    for name, score in scores.items():
        found[name] = {
            "auroc": share_interval(aurocs[name]),
            "mass": share_interval(column(mass_inside(score.numpy(), inside))),
            "pointing": share_interval(column(pointing(score.numpy(), inside))),
        }
        if name not in baselines:
            found[name]["auroc_ahead"] = {
                other: change_interval(aurocs[name] - aurocs[other]) for other in baselines
            }
    area = share_interval(column(inside.mean(1)))
    return {"samples": int(used.sum()), "area": area, "assigners": found}
