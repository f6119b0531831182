"""What a run will do, how much memory it takes and about how long, before it runs. Trains nothing.

Seconds come from slices of a step's work that are run on this device. A slice grows until it takes a while, or is the
whole of what runs at once; its time is scaled. Left out: the optimizer's own step, talk between processes, further rounds
of dynamic sampling, golden references, where the reward looked.
Shapes: P prompts, G samples each, T image tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...api.launch import slow_format
from ...api.memory import estimate, out_of_memory, require_room
from ...api.parts import Parts
from ...rollout.captured import WARM_UP, eager_reason
from ...rollout.sampling import ESTIMATE, decode_batch, derive_seed, sampling_noise
from ...training.policy import Policy, mixed_precision, passes_needed, samples_in_a_pass
from ...training.processes import local_device, process_count
from ...training.tune import AdapterOff
from .timing import cpu_threads, seconds

ENOUGH = 0.5  # seconds; a slice that takes longer is not made larger
SLOW = 20.0  # seconds; a slice that takes longer is not run again, setting up included
GROWTH = 4
DECODED = 4  # tokens that a slice of sampling feeds back
REPLAYED = 64  # the same where a GPU replays its steps, which takes less than recording them
TRAINED = 32  # image tokens of the first slice of the update: its prompt should not weigh much


def step_seconds(parts: Parts, processes: int = 1) -> dict[str, float]:
    """Seconds of a step: sampling, rewards (decoding to pixels included), update. The model is left as it was.

    Args:
        parts: of the run.
        processes: that share the prompts out.
    """
    config, model = parts.config, parts.model
    with cpu_threads(config.train.threads), mixed_precision(config, model.device):
        slices = _Slices(parts, -(-config.prompts.per_step // processes))
        found = {
            "sampling": slices.sampling(),
            "rewards": slices.rewards(),
            "update": slices.update(),
        }
    model.zero_grad(set_to_none=True)
    return found


class _Slices:
    """The work of one process on its share of the prompts, slice by slice."""

    def __init__(self, parts: Parts, share: int) -> None:
        self.parts, self.config, self.model = parts, parts.config, parts.model
        self.prompts, self.group_size = parts.prompts[:share], self.config.rollout.group_size
        model, prompts = self.model, self.prompts
        self.samples = len(prompts) * self.group_size
        self.tokens = model.grid[0] * model.grid[1]
        self.condition = model.condition([p.text for p in prompts], [p.negative for p in prompts])

    def _of(self, samples: int) -> tuple[Any, int, int]:
        """The condition of about so many samples, P and G: a part of one group, or whole groups."""
        group = min(samples, self.group_size)
        prompts = max(1, samples // self.group_size)
        chosen = torch.arange(prompts, device=self.model.device)
        return self.condition.select(chosen), prompts, group

    @torch.no_grad()
    def sampling(self) -> float:
        """Prompts, then the first tokens of as many samples as are decoded together."""
        settings, device = self.config.rollout, self.model.device

        def decoded(samples: int, tokens: int) -> float:
            condition, prompts, group = self._of(samples)
            noise = sampling_noise(derive_seed(ESTIMATE), 0, prompts * group, tokens).to(device)
            return seconds(
                device,
                lambda: decode_batch(self.model, condition, group, noise, **settings.sampling),
            )

        eager = eager_reason(self.model) is not None
        begun = 1 if eager else min(2 + WARM_UP, self.tokens)  # tokens until steps take their time
        fed = min(DECODED if eager else REPLAYED, self.tokens - begun)

        def measured(samples: int) -> tuple[float, ...]:
            first = decoded(samples, begun)
            return first, max(0.0, decoded(samples, begun + fed) - first)

        samples, (first, rest) = _grown(
            measured, 1, min(settings.batch_size or self.samples, self.samples)
        )
        _, prompts, group = self._of(samples)
        whole = first + rest / max(1, fed) * (self.tokens - begun)
        return whole * self.samples / (prompts * group)

    @torch.no_grad()
    def rewards(self) -> float:
        """Codes to pixels, and what they are worth."""
        draw = torch.Generator().manual_seed(0)

        def judged(count: int) -> tuple[float, ...]:
            # other images at each call: a reward may remember those that it has seen
            codes = torch.randint(self.model.codebook_size, (count, self.tokens), generator=draw)
            codes = codes.to(self.model.device)
            prompts = [self.prompts[i * len(self.prompts) // count] for i in range(count)]

            def work() -> None:
                self.parts.reward(self.model.decode(codes).float(), prompts)

            return (seconds(self.model.device, work),)

        count, (spent,) = _grown(judged, 1, self.samples)
        return spent * self.samples / count

    def update(self) -> float:
        """The policy's pass over some tokens of a sample, or over as many samples as are trained on together."""
        config, device = self.config, self.model.device
        policy = Policy.of(config)
        wanted = policy.logprobs
        largest = samples_in_a_pass(config, self.model.grid, self.samples)

        def measured(tokens: int) -> tuple[float, ...]:
            condition, prompts, group = self._of(max(1, tokens // self.tokens))
            codes = torch.zeros(
                prompts * group, min(tokens, self.tokens), dtype=torch.long, device=device
            )
            found: list[torch.Tensor] = []

            def forward() -> None:
                scale, temperature = config.rollout.cfg_scale, config.rollout.temperature
                passed = self.model(
                    condition, codes, want=[wanted], cfg_scale=scale, temperature=temperature
                )
                found.append(passed[wanted].sum())

            there = seconds(device, forward)
            return there, seconds(device, found[0].backward)

        size, (there, back) = _grown(measured, TRAINED, min(largest, self.samples) * self.tokens)
        _, prompts, group = self._of(max(1, size // self.tokens))
        passed = prompts * group * min(size, self.tokens) * (1 + policy.both_branches)
        needed = passes_needed(config, self.parts.credit)
        per_token = (needed.policy * (there + back) + needed.frozen * there) / passed
        return per_token * self.samples * self.tokens


def _grown(
    measured: Callable[[int], tuple[float, ...]], first: int, largest: int
) -> tuple[int, tuple[float, ...]]:
    """The largest slice that was tried, and its seconds: from `first` on, up to one that takes a while."""
    size = min(first, largest)
    spent = measured(size)  # with what is set up once
    if sum(spent) > SLOW:
        return size, spent
    while True:
        spent = measured(size)
        if sum(spent) > ENOUGH or size == largest:
            return size, spent
        size = min(GROWTH * size, largest)


def told(seconds_of: dict[str, float]) -> str:
    """The estimate in words."""
    parts = ", ".join(f"{name} {_shown(spent)}" for name, spent in seconds_of.items())
    return f"{_shown(sum(seconds_of.values()))} ({parts}), scaled from a slice of each"


def _shown(spent: float) -> str:
    return f"{spent:.2g} s" if spent < 10 else f"{spent:.0f} s"


def plan(parts: Parts) -> dict[str, Any]:
    """What a run will do, about how much memory it takes and how long: bytes are an estimate from the sizes of the model,
    seconds one from slices of a step that are run here.

    Raises:
        ConfigError: more memory than there is.
    """
    config, model = parts.config, parts.model
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    samples = config.prompts.per_step * config.rollout.group_size
    tokens = model.grid[0] * model.grid[1]
    held, switched = parts.reference is not None, isinstance(parts.reference, AdapterOff)
    needed = estimate(model, config, reference=held and not switched, processes=process_count())
    require_room(needed["total"], local_device())
    with out_of_memory():
        spent = step_seconds(parts, process_count())
    slow = slow_format(config, model.device.type)
    return {
        "model": config.model.name,
        **({"warning": slow} if slow else {}),
        "parameters trained": trained,
        "image tokens": f"{tokens} ({model.grid[0]} x {model.grid[1]}), {model.codebook_size} codes",
        "prompts": len(parts.prompts),
        "steps": config.train.steps,
        "samples per step": samples,
        "samples": samples * config.train.steps,
        "forward passes per token": passes_needed(config, parts.credit).total,
        "reference model": ("held" if not switched else "adapter off") if held else "none",
        "memory, about": f"{needed['total'] / 2**20:.0f} MiB",
        "time per step, about": told(spent),
    }
