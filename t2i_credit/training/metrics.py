"""What is logged of every training step: one line of explanation each, the numbers that need only tensors, the clock.

Shapes: P prompts, G samples of each, B = P*G samples, T = H*W image tokens in raster order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from ..advantages import zero_spread_groups
from ..geneval import pixels_of
from ..interfaces import Rollout

COVERAGE = 0.25  # a token lies on an object if the objects cover at least this share of its cell

Objects = Sequence[Sequence[Mapping[str, Any]]]  # per sample, as the run folder keeps them

# Names as they stand in metrics.jsonl. Keys under time/ are seconds or rates and differ from run to run.
METRICS = {
    "reward": "mean total reward of the step's images",
    "reward/*": "mean of one part of the reward, before its weight",
    "reward_normalized/*": "mean of a part that is normalised before its weight (within groups: 0)",
    "heldout/*": "mean of a held-out part of the reward, which is never trained on",
    "heldout_falls": "1 = over the last 40 steps `reward` rose and a held-out part fell, both for sure",
    "reward_spread": "standard deviation of the reward within a group, mean over groups",
    "zero_spread": "share of groups whose images all have the same reward, and so teach nothing",
    "rounds": "rounds of dynamic sampling",
    "groups_dropped": "groups of equal rewards that dynamic sampling dropped",
    "groups_trained": "groups that the update saw; fewer than prompts.per_step if the rounds ran out",
    "gold": "groups that failed as a whole and got a golden reference",
    "gold_missing": "groups that failed as a whole and whose prompt has no golden reference",
    "diversity": "share of positions at which two images of one prompt have different tokens",
    "entropy": "mean entropy of the positive branch, nats per token",
    "logprob": "mean log-probability of the tokens under the positive prompt, nats",
    "signed_contrast": "mean of log p(token | positive) - log p(token | negative), nats",
    "credit_max": "largest credit weight of an image, mean over images (1 = uniform)",
    "credit_top20": "share of the credit on the 20% of tokens that have most, mean over images",
    "truth/auroc": "of the kept samples: how well credit tells tokens on prompted objects from others (0.5 = chance)",
    "truth/mass": "of the kept samples: share of the credit that lies on prompted objects",
    "truth/area": "of the kept samples: share of the tokens that lie on prompted objects",
    "truth/pointing": "of the kept samples: share whose token of most credit lies on a prompted object",
    "credit_shift": "mean |refreshed credit - credit of the rollout| of a token, with credit.refresh",
    "critic/explained": "share of the reward's variance, beyond the group's mean, that the critic explains of images before it learns from them; mean over positions",
    "critic/explained/*": "the same after 25, 50, 75 and 100% of an image's tokens",
    "critic/calibration": "slope of rewards against the critic's values, both less its value of the prompt (1 = calibrated, below 1 = too sure)",
    "critic/weight": "how far the critic is believed, 0 to 1",
    "critic/loss": "mean cross-entropy of the critic's updates, nats",
    "critic/images": "images that the critic may learn from again",
    "loss": "value of the loss that was minimised",
    "kl": "mean KL to the frozen reference, k3 estimate, nats per token",
    "clip_frac": "share of tokens whose ratio was clipped against its advantage",
    "approx_kl": "KL between the policy before and after the step's earlier updates, k3 estimate",
    "ratio_mean": "mean importance ratio",
    "ratio_max": "largest importance ratio",
    "log_ratio_mean": "mean |log-prob in training - log-prob in sampling| before the first update",
    "log_ratio_max": "the largest such difference",
    "grad_norm": "norm of the gradient before it is clipped",
    "lr": "learning rate",
    "samples": "images sampled since the start",
    "time/rollout": "seconds of sampling",
    "time/reward": "seconds of scoring",
    "time/map": "seconds of finding out where the reward looked",
    "time/update": "seconds of credit, loss, backward pass and optimizer",
    "time/critic": "seconds of what the critic learns in",
    "time/step": "seconds of the whole step",
    "time/tokens_per_second": "image tokens sampled and trained on per second of the step",
}

# Further names of a run on text; its others are among METRICS, and mean the same with answers for images.
TEXT_METRICS = {
    "answer_length": "mean number of tokens of a sampled answer, with its end token",
    "truncated": "share of sampled answers that grpo.max_completion_length cut off",
}


class StepClock:
    """The seconds of a step, part by part.

    Args:
        settle: called before the end of a part is read, such as to wait for a device that lags behind Python.

    Attributes:
        seconds: {part: spent on it in this step}.
    """

    def __init__(self, settle: Callable[[], None] = lambda: None) -> None:
        self.settle = settle
        self.seconds: dict[str, float] = {}

    def restart(self) -> None:
        """Another step begins."""
        self.seconds = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Adds what happens inside to a part."""
        began = time.perf_counter()
        yield
        self.settle()
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began


@torch.no_grad()
def rollout_metrics(
    rollout: Rollout,
    rewards: Tensor,
    parts: Mapping[str, Tensor],
    *,
    normalized: Mapping[str, Tensor],
    heldout: Collection[str],
) -> dict[str, float]:
    """The metrics that are known once the samples are scored.

    Args:
        rollout: B samples.
        rewards: (B,).
        parts: {name: (B,)} as they are.
        normalized: {name: (B,)} of the parts that are normalised before they are weighed.
        heldout: names of the parts that are not trained on.
    """
    size = rollout.group_size
    groups = rollout.tokens.unflatten(0, (-1, size)).cpu().numpy()
    found = {
        "reward": float(rewards.mean()),
        **{
            f"{'heldout' if name.split('/')[0] in heldout else 'reward'}/{name}": float(part.mean())
            for name, part in parts.items()
        },
        **{f"reward_normalized/{name}": float(part.mean()) for name, part in normalized.items()},
        "reward_spread": float(rewards.unflatten(0, (-1, size)).std(1).mean()),
        "zero_spread": float(zero_spread_groups(rewards, size).float().mean()),
        "diversity": fmean(d for d in token_disagreement(groups) if d is not None),
        "entropy": float(rollout.entropy.mean()),
        "logprob": float(rollout.logprobs.mean()),
    }
    if rollout.negative_logprobs is not None:
        found["signed_contrast"] = float((rollout.logprobs - rollout.negative_logprobs).mean())
    return found


@torch.no_grad()
def credit_metrics(credit: Tensor, mask: Tensor | None = None) -> dict[str, float]:
    """How concentrated the credit (B, T) is.

    Args:
        credit: (B, T), 0 off the mask.
        mask: (B, T) bool, where rows differ in length; rows wholly masked do not count.
    """
    lengths = torch.full_like(credit[:, 0], credit.shape[1]) if mask is None else mask.sum(1)
    credit, lengths = credit[lengths > 0], lengths[lengths > 0]
    if not len(credit):
        return {"credit_max": 0.0, "credit_top20": 0.0}
    ordered = credit.sort(dim=1, descending=True).values
    count = (lengths / 5).round().clamp(min=1)
    top = torch.arange(credit.shape[1], device=credit.device) < count[:, None]
    share = (ordered * top).sum(1) / credit.sum(1).clamp(min=1e-9)
    return {"credit_max": float(credit.amax(1).mean()), "credit_top20": float(share.mean())}


def token_disagreement(tokens: NDArray[np.integer]) -> list[float | None]:
    """How different the samples of each prompt are: the fraction of positions at which two of them differ.

    Args:
        tokens: (P, G, T).

    Returns:
        (P) means over the G (G - 1) / 2 pairs, in [0, 1]; None where G is 1.
    """
    group = tokens.shape[1]
    if group < 2:
        return [None] * len(tokens)
    differs = (tokens[:, :, None] != tokens[:, None]).mean((1, 2, 3))  # each sample with itself too
    return [float(share) for share in differs * group / (group - 1)]


def object_tokens(
    objects: Objects,
    grid: tuple[int, int],
    image_size: tuple[int, int],
    *,
    keep: Callable[[int, Mapping[str, Any]], bool] = lambda sample, one: bool(one["prompted"]),
    coverage: float = COVERAGE,
) -> Tensor:
    """(B, T) bool: tokens whose cell is covered by at least `coverage` by the kept objects together.

    Args:
        objects: each with its mask (h, w), or None and then its box (x0, y0, x1, y1) counts whole.
        grid: (H, W).
        image_size: (h, w).
        keep: which objects count, from the sample's number and the object; by default the prompted ones.
        coverage: in (0, 1].
    """
    pixels = torch.zeros(len(objects), 1, *image_size)
    for b, found in enumerate(objects):
        for one in found:
            if keep(b, one):
                covered = pixels_of(one.get("box", ()), one.get("mask"), image_size)
                pixels[b, 0][torch.from_numpy(covered)] = 1.0
    return (F.adaptive_avg_pool2d(pixels, grid) >= coverage).flatten(1)


@torch.no_grad()
def live_localisation(
    credit: Tensor, objects: Objects, grid: tuple[int, int], image_size: tuple[int, int]
) -> dict[str, float]:
    """The figures of a training step's kept samples, {} where no object was found.

    Args:
        credit: (B, T).
        objects: what was found on each sample.
        grid, image_size: (H, W) tokens and (h, w) pixels.
    """
    inside = object_tokens(objects, grid, image_size).numpy()
    used = inside.any(1) & ~inside.all(1)
    if not used.any():
        return {}
    scores, inside = credit.cpu().numpy()[used], inside[used]
    return {
        "truth/auroc": float(auroc(scores, inside).mean()),
        "truth/mass": float(mass_inside(scores, inside).mean()),
        "truth/area": float(inside.mean()),
        "truth/pointing": float(pointing(scores, inside).mean()),
    }


def auroc(scores: NDArray[Any], on_object: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The probability that a token on an object scores higher than one off it; a tie counts half.

    (B, T), (B, T) to (B,) in [0, 1]; 0.5 is chance, nan where all tokens are on, or all are off.
    """
    on = on_object.sum(1)
    off = on_object.shape[1] - on
    ranks = np.where(on_object, stats.rankdata(scores, axis=1), 0.0).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = (ranks - on * (on + 1) / 2) / (on * off)
    return np.where((on > 0) & (off > 0), found, np.nan)


def mass_inside(scores: NDArray[Any], on_object: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of a row's total score, at least 0 each, that lies on objects: (B, T) twice to (B,)."""
    total = scores.sum(1, dtype=np.float64)
    inside = np.where(on_object, scores, 0).sum(1, dtype=np.float64)
    return np.divide(inside, total, out=on_object.mean(1), where=total > 0)


def pointing(scores: NDArray[Any], on_object: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Whether the top token is on an object; of several top tokens the share. (B, T) twice to (B,)."""
    top = scores == scores.max(1, keepdims=True)
    share: NDArray[np.float64] = (top & on_object).sum(1) / top.sum(1)
    return share
