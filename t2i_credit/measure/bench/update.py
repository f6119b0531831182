"""The update's log-probs in recomputed chunks beside all of them held: memory and time. Trains nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...api.parts import Parts
from ...training.policy import Policy, samples_in_a_pass
from .memory import MemorySize, peak
from .timing import Row, compared, interleaved, seconds


def memory_rows(size: MemorySize, repeats: int, done: Callable[[], None]) -> list[Row]:
    """Peak memory and time of log-probs, forward and backward, a process for each measurement."""
    found: dict[str, list[dict[str, float]]] = {"chunked": [], "held": []}

    def measured(way: str, repeat: int) -> float:
        found[way].append(peak(way, size, repeat))
        return found[way][-1]["peak"]

    interleaved(lambda i: measured("chunked", i), lambda i: measured("held", i), repeats, done)
    what = (
        f"{size.tokens} tokens' log-probs over {size.codes} codes and their gradients: in chunks of "
        f"{size.chunk} tokens as in the update, against all held"
    )
    peaks, times = (
        [[one[name] / unit for one in found[way]] for way in ("chunked", "held")]
        for name, unit in (("peak", 2.0**20), ("seconds", 1.0))
    )
    return [
        compared(f"peak memory of {what}", "MiB", *peaks),
        compared(f"time of {what}", "s", *times),
    ]


def pass_row(made: Parts, repeats: int, done: Callable[[], None]) -> Row:
    """The policy's pass over a micro-batch, forward and backward; the rival's chunk is as large as the micro-batch."""
    config, model = made.config, made.model
    group_size = config.rollout.group_size
    samples = config.prompts.per_step * group_size
    samples = min(samples_in_a_pass(config, model.grid, samples), samples)
    asked = made.prompts[: max(1, samples // group_size)]
    samples = len(asked) * min(samples, group_size)
    condition = model.condition([p.text for p in asked], [p.negative for p in asked])
    wanted = Policy.of(config).logprobs
    tokens = model.grid[0] * model.grid[1]
    chunk = model.logits_at_once

    def passed(repeat: int, logits_at_once: int) -> float:
        draw = torch.Generator().manual_seed(repeat)
        codes = torch.randint(model.codebook_size, (samples, tokens), generator=draw)
        codes, model.logits_at_once = codes.to(model.device), logits_at_once

        def work() -> None:
            found = model(condition, codes, want=[wanted], cfg_scale=config.rollout.cfg_scale)
            found[wanted].mean().backward()

        spent = seconds(model.device, work)
        model.zero_grad(set_to_none=True)
        return spent

    whole = samples * tokens * model.codebook_size
    for size in (chunk, whole):
        passed(0, size)  # what is set up once
    ours, rival = interleaved(lambda i: passed(i, chunk), lambda i: passed(i, whole), repeats, done)
    model.logits_at_once = chunk
    what = (
        f"the policy's pass over {samples} images of {tokens} tokens, forward and backward: log-probs in chunks of "
        f"{chunk // model.codebook_size} tokens, against all held"
    )
    return compared(what, "s", ours, rival)
