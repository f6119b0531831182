"""Does the credit name the tokens that decide the reward? Redraws some tokens and looks at what the reward does.

For every sample each token gets one fresh draw under the positive and one under the negative prompt, given the
tokens before it. Tokens whose draw is another code can be changed; a score changes the m of them that it ranks
highest (or lowest), where m is the same for all scores: a redraw that gives the same token proves nothing.

Shapes: P prompts, G samples of each, B = P*G samples, T image tokens, V codes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...interfaces import Condition, ImageTokenModel, Rollout
from ...rollout.logprobs import guided_logits
from ...rollout.sampling import REDRAW, derive_seed, draw, sampling_noise, truncate
from ..intervals import mean_interval, per_prompt, ratio_interval

BRANCHES = ("positive", "negative")
MODES = ("kept", "continued")
ENDS = ("highest", "lowest")

Score = Callable[[Tensor, Tensor], Tensor]  # tokens (N, T), numbers of samples (N,) to rewards (N,)


@torch.no_grad()
def redraw(
    model: ImageTokenModel, condition: Condition, tokens: Tensor, noise: Tensor
) -> dict[str, Tensor]:
    """One fresh draw of every token from each branch, given the original tokens before it.

    Args:
        condition: P prompts with their negatives.
        tokens: (B, T) codes.
        noise: (B, T, 2) in [0, 1).

    Returns:
        {branch: (B, T) codes}, at temperature 1 and without guidance.
    """
    state = model.expand(model.prefill(condition), len(tokens) // condition.prompts)
    drawn: dict[str, list[Tensor]] = {branch: [] for branch in BRANCHES}
    taken = None
    for t in range(tokens.shape[1]):
        for i, logits in enumerate(model.advance(state, taken)):
            assert logits is not None
            logprobs = logits.log_softmax(-1, dtype=torch.float32)
            drawn[BRANCHES[i]].append(draw(logprobs, noise[:, t, i]))
        taken = tokens[:, t]
    return {branch: torch.stack(columns, 1) for branch, columns in drawn.items()}


@torch.no_grad()
def continued(
    model: ImageTokenModel,
    condition: Condition,
    tokens: Tensor,
    forced: Tensor,
    noise: Tensor,
    *,
    cfg_scale: float,
    temperature: float,
    top_k: int,
    top_p: float,
) -> Tensor:
    """Samples again under the noise of the original, with some tokens given.

    Where nothing given differs from what the original had, the original comes out again; after a change, a token
    differs only as far as the change reaches it.

    Args:
        tokens: (B, T) the codes at the given places.
        forced: (B, T) bool, True = given.
        noise: (B, T) of the original sampling.

    Returns:
        (B, T) codes.
    """
    state = model.expand(model.prefill(condition), len(tokens) // condition.prompts)
    chosen: list[Tensor] = []
    for t in range(tokens.shape[1]):
        positive, negative = model.advance(state, chosen[-1] if chosen else None)
        guided = guided_logits(positive, negative, cfg_scale=cfg_scale, temperature=temperature)
        sampled = draw(truncate(guided, top_k, top_p).log_softmax(-1), noise[:, t])
        chosen.append(torch.where(forced[:, t], tokens[:, t], sampled))
    return torch.stack(chosen, 1)


def ranked(
    score: Tensor, changeable: Tensor, counts: Tensor, *, highest: bool, seed: int
) -> Tensor:
    """(B, T) bool: of each row's changeable tokens the `counts` (B,) with the highest (or lowest) score.

    Ties are broken at random, from `seed`.
    """
    order = torch.rand(score.shape, generator=torch.Generator().manual_seed(seed)).argsort(1)
    keys = score if highest else -score
    keys = torch.where(changeable, keys, -torch.inf).gather(1, order)
    order = order.gather(1, keys.argsort(dim=1, descending=True, stable=True))
    place = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1]).expand_as(order)
    )
    return place < counts[:, None]


def change_counts(changeable: Tensor, share: float) -> Tensor:
    """(B,) how many tokens are changed: `share` of all, but at most half of those that can be."""
    wanted = max(1, round(share * changeable.shape[1]))
    return (changeable.sum(1) // 2).clamp(max=wanted)


@dataclass(frozen=True)
class Sampled:
    """A rollout whose tokens are to be changed, and how it was sampled.

    Attributes:
        model: the generator.
        rollout: whole groups.
        rewards: (B,).
        seed: of its noise.
        sampling: cfg_scale, temperature, top_k, top_p.
        score_tokens: tokens (N, T) and the N samples that they stand for to rewards (N,).
        batch_prompts: prompts decoded together.
    """

    model: ImageTokenModel
    rollout: Rollout
    rewards: Tensor
    seed: int
    sampling: Mapping[str, Any]
    score_tokens: Score
    batch_prompts: int

    def redrawn(self, seed: int) -> dict[str, Tensor]:
        """{branch: (B, T)} one fresh draw of every token; see `redraw`."""
        tokens = self.rollout.tokens
        noise = sampling_noise(seed, 0, len(tokens), 2 * tokens.shape[1])
        noise = noise.unflatten(1, (-1, 2)).to(tokens.device)
        parts = [redraw(self.model, c, tokens[rows], noise[rows]) for c, rows in self.parts()]
        return {branch: torch.cat([part[branch] for part in parts]) for branch in BRANCHES}

    def changed(self, candidates: Tensor, places: Tensor) -> dict[str, Tensor]:
        """{mode: (B, T)} tokens with the candidates at the places, the others kept or sampled on."""
        tokens = self.rollout.tokens
        edited = torch.where(places, candidates, tokens)
        noise = sampling_noise(self.seed, 0, *tokens.shape).to(tokens.device)
        again = [
            continued(self.model, c, edited[r], places[r], noise[r], **self.sampling)
            for c, r in self.parts()
        ]
        return dict(zip(MODES, (edited, torch.cat(again)), strict=True))

    def drop(self, tokens: Tensor) -> NDArray[Any]:
        """(B,) how much reward is lost."""
        found = self.score_tokens(tokens, torch.arange(len(tokens)))
        return (self.rewards.cpu() - found.cpu()).numpy()

    def score_copies(self, tokens: Tensor, rows: slice, copies: int) -> Tensor:
        """(N * copies,) rewards of `copies` token grids for each of the samples at `rows`, side by side."""
        return self.score_tokens(
            tokens, torch.arange(rows.start, rows.stop).repeat_interleave(copies)
        )

    def parts(self) -> Iterator[tuple[Condition, slice]]:
        """The prompts in batches, each with the rows of its samples."""
        size = self.rollout.group_size
        prompts = self.rollout.prompts[::size]
        whole = self.model.condition([p.text for p in prompts], [p.negative for p in prompts])
        for start in range(0, len(prompts), self.batch_prompts):
            end = min(start + self.batch_prompts, len(prompts))
            index = torch.arange(start, end, device=self.rollout.tokens.device)
            yield whole.select(index), slice(start * size, end * size)


def causality(
    sampled: Sampled,
    scores: Mapping[str, Tensor],
    *,
    share: float,
    repeats: int,
    seed: int,
    done: Callable[[], None],
) -> dict[str, Any]:
    """The drop in reward when a score's highest, its lowest, or random tokens are changed.

    Args:
        scores: {name: (B, T)}; "random" must be among them: it is what the others are divided by.
        share: k, share of all tokens that are changed (see `change_counts`).
        repeats: independent redraws.
        done: called after each decoding of all samples.

    Returns:
        branch -> mode ("kept": the other tokens stay; "continued": those that come after are sampled again) ->
        changed (mean tokens per sample) and per name highest and lowest [drop, low, high], ratio (highest against
        random's, whose highest and lowest are two draws of the same) and, but for entropy, ahead_of_entropy (difference of both highest).
    """
    drops: dict[tuple[str, str, str, str], list[NDArray[Any]]] = {}
    counted: dict[str, list[float]] = {branch: [] for branch in BRANCHES}
    for repeat in range(repeats):
        of_repeat = derive_seed(REDRAW, seed, repeat)
        candidates = sampled.redrawn(of_repeat)
        done()
        for branch, fresh in candidates.items():
            changeable = (fresh != sampled.rollout.tokens).cpu()
            counts = change_counts(changeable, share)
            counted[branch].append(float(counts.float().mean()))
            for name, end in itertools.product(scores, ENDS):
                places = ranked(
                    scores[name], changeable, counts, highest=end == "highest", seed=of_repeat
                )
                for mode, tokens in sampled.changed(fresh, places.to(fresh.device)).items():
                    drops.setdefault((branch, mode, name, end), []).append(sampled.drop(tokens))
                done()
    size = sampled.rollout.group_size
    columns = {key: per_prompt(np.mean(values, axis=0), size) for key, values in drops.items()}
    return {
        branch: {
            mode: {
                "changed": float(np.mean(counted[branch])),
                "assigners": {name: _row(columns, branch, mode, name) for name in scores},
            }
            for mode in MODES
        }
        for branch in BRANCHES
    }


def _row(
    columns: Mapping[tuple[str, str, str, str], NDArray[Any]], branch: str, mode: str, name: str
) -> dict[str, Any]:
    highest = columns[branch, mode, name, "highest"]
    random = (columns[branch, mode, "random", end] for end in ENDS)
    row = {
        "highest": mean_interval(highest),
        "lowest": mean_interval(columns[branch, mode, name, "lowest"]),
        "ratio": ratio_interval(highest, np.mean([*random], axis=0)),
    }
    if name != "entropy" and (branch, mode, "entropy", "highest") in columns:
        row["ahead_of_entropy"] = mean_interval(
            highest - columns[branch, mode, "entropy", "highest"]
        )
    return row


def decodings(scores: int, repeats: int) -> int:
    """How often `causality` calls `done` for that many scores."""
    return repeats * (1 + len(ENDS) * len(BRANCHES) * scores)
