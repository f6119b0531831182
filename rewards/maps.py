"""Where a reward looked: a signed map over the image tokens for each part that is asked for one.

gradient: how much a token's code, in place of the picture's mean code, changes the reward to first order. objects: which objects a
detector's verdict found right (+) or wrong (-). occlusion: what is lost where a block of tokens shows the picture's ground
instead. redraw: what is lost where the policy draws a block's tokens afresh, the others kept. The last two hold for the
blocks as they are changed: no token after them is sampled anew.

Shapes: B samples, T = H*W image tokens in raster order, C numbers of a code vector, N blocks, K draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config.sections import RewardConfig
from ..errors import ConfigError, ModelError
from ..interfaces import (
    DifferentiableDecoder,
    DifferentiableReward,
    LocatingReward,
    Prompt,
    RewardFn,
    Rollout,
    plugin_errors,
    plugin_values,
)
from ..rollout.ground import ground_codes
from ..rollout.redraw import fresh_draws
from . import WeightedReward, judged

OFFERED = {
    "gradient": (DifferentiableReward, "has no gradient in the pixels"),
    "objects": (LocatingReward, "finds no objects"),
}


@dataclass(frozen=True)
class PartMap:
    """The map of one part.

    Attributes:
        name, weight: of the part.
        reward: the part itself.
        config: says which map.
    """

    name: str
    weight: float
    reward: RewardFn
    config: RewardConfig


@dataclass(frozen=True)
class RewardMaps:
    """Maps of a reward's parts, as one map of their weighted sum.

    Attributes:
        parts: those that have a map, at least one.
        sampling: cfg_scale, temperature, top_k, top_p of the images.
        batch_size: most samples decoded together where tokens are redrawn; None = all.
    """

    parts: Sequence[PartMap]
    sampling: Mapping[str, Any]
    batch_size: int | None

    def check(self, model: Any) -> None:
        """Raises ModelError or ConfigError where a map cannot be made of this generator's images."""
        height, width = model.grid
        most = min(height, width) // 2
        for part in self.parts:
            where, kind, block = f"reward.{part.name}.map", part.config.map, part.config.map_block
            if kind == "gradient" and not isinstance(model, DifferentiableDecoder):
                raise ModelError(
                    f"{where}: 'gradient' is refused: {type(model).__name__} has no decode_vectors, so that its image "
                    "tokenizer cannot be differentiated; occlusion and redraw need none"
                )
            if kind in ("occlusion", "redraw") and block > most:
                raise ConfigError(
                    f"{where}_block: {block} is not allowed: the images have {height} x {width} tokens, and a block at "
                    f"most half a side, 1 to {most}"
                )

    def __call__(
        self,
        model: Any,
        rollout: Rollout,
        values: Mapping[str, Tensor],
        *,
        seed: int,
        first_sample: int = 0,
    ) -> Tensor:
        """(B, T) float32: the maps of the parts times their weights, added up; on the tokens' device.

        Args:
            model: drew the rollout.
            rollout: whole groups.
            values: {name: (B,)} of the parts, as the reward gave them.
            seed, first_sample: of the noise of redrawn tokens, see `sampling_noise`.

        Raises:
            TrainingError: a part's map is none, or not finite.
        """
        total = torch.zeros(rollout.tokens.shape, device=rollout.tokens.device)
        for part in self.parts:
            images = _Images(model, rollout, part)
            own = ":" in part.name
            with plugin_errors(f"map of reward {part.name}") if own else nullcontext():
                if part.config.map == "gradient":
                    found = images.gradient()
                elif part.config.map == "objects":
                    found = images.objects()
                else:
                    drawn = self._replacements(model, rollout, part, seed, first_sample)
                    effects = [images.lost(values[part.name], codes) for codes in drawn.unbind(2)]
                    found = torch.stack(effects).mean(0)
            who = f"map of reward {part.name}"
            found = plugin_values(found, tuple(total.shape), who, mask=rollout.mask)
            total += part.weight * found.to(total.device)
        return total

    def _replacements(
        self, model: Any, rollout: Rollout, part: PartMap, seed: int, first_sample: int
    ) -> Tensor:
        """(B, T, K) what a block's tokens are replaced by."""
        if part.config.map == "occlusion":
            return ground_codes(rollout.tokens, model.codebook, model.grid)[..., None]
        return fresh_draws(
            model,
            rollout,
            part.config.map_draws,
            seed=seed,
            first_sample=first_sample,
            batch_size=self.batch_size,
            **self.sampling,
        )


@dataclass(frozen=True)
class _Images:
    """The images of a rollout, looked at by one part."""

    model: Any
    rollout: Rollout
    part: PartMap

    def gradient(self) -> Tensor:
        """(z_t - mean z) . dR / dz_t, (B, T) float32: no pass of the policy. Sums to the first-order change of the reward
        against the picture whose tokens all have the mean vector."""
        found = []
        for tokens, prompts in self._batches():
            with torch.enable_grad():
                vectors = self.model.vectors(tokens).detach().requires_grad_()  # (b, T, C)
                images = self.model.decode_vectors(vectors).float()
                values = self.part.reward.differentiable(images, prompts)  # type: ignore[attr-defined]
                (slope,) = torch.autograd.grad(values.sum(), vectors)
            vectors = vectors.detach().float()
            apart = vectors - vectors.mean(1, keepdim=True)
            found.append((apart * slope.float()).sum(-1))
        return torch.cat(found)

    @torch.no_grad()
    def objects(self) -> Tensor:
        """(B, T) what the part's `locate` says."""
        grid, images = self.model.grid, self.rollout.images
        return self.part.reward.locate(images, self.rollout.prompts, grid)  # type: ignore[attr-defined]

    @torch.no_grad()
    def lost(self, values: Tensor, codes: Tensor) -> Tensor:
        """(B, T): what the reward loses where a block's tokens are replaced, shared out among those that change.

        Args:
            values: (B,) of the images as they are.
            codes: (B, T) the replacements. A block in which none differs is not judged.
        """
        blocks = block_numbers(self.model.grid, self.part.config.map_block).to(codes.device)
        tokens = self.rollout.tokens
        changed = codes != tokens
        counts = torch.zeros(len(tokens), int(blocks.max()) + 1, device=codes.device)
        counts.index_add_(1, blocks, changed.float())  # (B, N)
        effects = torch.zeros_like(counts)
        for part in counts.nonzero().split(self.part.config.map_batch):
            rows, places = part.unbind(1)
            inside = changed[rows] & (blocks == places[:, None])
            edited = torch.where(inside, codes[rows], tokens[rows])
            images = self.model.decode(edited).float()
            prompts = [self.rollout.prompts[row] for row in rows.tolist()]
            name = self.part.name
            now = judged(name, self.part.reward, images, prompts)[name]
            effects[rows, places] = (values[rows] - now).float()
        return changed * (effects / counts.clamp(min=1))[:, blocks]

    def _batches(self) -> list[tuple[Tensor, list[Prompt]]]:
        """Tokens (b, T) and prompts, as many as are decoded together."""
        size, tokens = self.part.config.map_batch, self.rollout.tokens
        return [
            (part, self.rollout.prompts[i * size : i * size + len(part)])
            for i, part in enumerate(tokens.split(size))
        ]


def block_numbers(grid: tuple[int, int], side: int) -> Tensor:
    """(T,) the block of every token: `side` x `side` tokens, fewer at the right and lower edge."""
    rows, columns = (torch.arange(length) // side for length in grid)
    return (rows[:, None] * (int(columns[-1]) + 1) + columns).flatten()


def reward_maps(
    reward: WeightedReward,
    parts: Mapping[str, RewardConfig],
    *,
    sampling: Mapping[str, Any],
    batch_size: int | None,
) -> RewardMaps | None:
    """The maps that a reward section asks for; None = of no part.

    Args:
        reward: the built reward.
        parts: the section.
        sampling, batch_size: see `RewardMaps`.

    Raises:
        ConfigError: a part has no such map.
    """
    found = []
    for name, config in parts.items():
        if config.map is None:
            continue
        weight, part = reward.parts[name]
        lacking = {
            kind: why for kind, (offer, why) in OFFERED.items() if not isinstance(part, offer)
        }
        if config.map in lacking:
            possible = [kind for kind in ("gradient", "objects") if kind not in lacking]
            raise ConfigError(
                f"reward.{name}.map: '{config.map}' is refused: this reward {lacking[config.map]} (possible: "
                f"{', '.join([*possible, 'occlusion', 'redraw'])})"
            )
        found.append(PartMap(name, weight, part, config))
    return RewardMaps(found, sampling, batch_size) if found else None
