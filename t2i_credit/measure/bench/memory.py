"""Peak memory of the log-probs of given tokens and of their gradients, and the time that both take, two ways. Judges nothing.

`peak` starts a process for each measurement (`python -m t2i_credit.measure.bench.memory JSON`), because memory that was
freed stays with a process. Measures a GPU's memory where there is one, else needs Linux: see `can_measure`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UserError
from ...rollout.logprobs import Head, chunked_logprobs
from ...training.processes import local_device
from .timing import seconds

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class MemorySize:
    """What is measured.

    Attributes:
        tokens: N, image tokens of a whole micro-batch.
        codes: V.
        width: D, of the last hidden states.
        chunk: token positions per call of the head, in the chunked way; 256 is what the models of this build
            take with 16,384 codes.
    """

    tokens: int = 4608
    codes: int = 16_384
    width: int = 256
    chunk: int = 256


def chunked(features: Tensor, head: Head, tokens: Tensor, size: MemorySize) -> Tensor:
    """(N,) log-probs as the update takes them: each chunk's logits are recomputed in the backward pass."""
    return chunked_logprobs(features, head, tokens, chunk=size.chunk)


def held(features: Tensor, head: Head, tokens: Tensor, size: MemorySize) -> Tensor:
    """(N,) log-probs picked out of those of all codes, (N, V) float32, which live until the backward pass."""
    return head(features).float().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


WAYS: dict[str, Callable[[Tensor, Head, Tensor, MemorySize], Tensor]] = {
    "chunked": chunked,
    "held": held,
}


def can_measure() -> bool:
    """Whether this system tells a process its peak memory (Linux does, and every GPU)."""
    return torch.cuda.is_available() or (_STATUS.is_file() and "VmHWM" in _STATUS.read_text())


def used(device: torch.device) -> tuple[int, int]:
    """Memory of this process on the device now, and the most it ever was, in bytes.

    The peak that `getrusage` reports will not do: a new process inherits its parent's.
    """
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    now, most = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def measure(way: str, size: MemorySize, seed: int) -> dict[str, float]:
    """A forward and a backward pass in this process, which should be a fresh one.

    Returns:
        peak: bytes above what features, head and tokens take. seconds: of the passes. mean: of the log-probs.
        gradient: norm of that of the features. The last two do not depend on the way.
    """
    torch.set_num_threads(1)
    trial = MemorySize(tokens=8, codes=16, width=4, chunk=4)
    _passes(way, trial, seed)  # so that what torch loads late is there
    return _passes(way, size, seed)


def _passes(way: str, size: MemorySize, seed: int) -> dict[str, float]:
    device = torch.device(local_device())
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(size.tokens, size.width, generator=rng).to(device).requires_grad_()
    head = nn.Linear(size.width, size.codes, bias=False)
    nn.init.normal_(head.weight, std=size.width**-0.5, generator=rng)
    head.to(device)
    tokens = torch.randint(size.codes, (size.tokens,), generator=rng).to(device)
    before, _ = used(device)
    found: list[Tensor] = []

    def passed() -> None:
        found.append(WAYS[way](features, head, tokens, size).mean())
        found[0].backward()

    spent = seconds(device, passed)
    _, most = used(device)
    assert features.grad is not None
    return {
        "peak": float(most - before),
        "seconds": spent,
        "mean": float(found[0].detach()),
        "gradient": float(features.grad.norm()),
    }


def peak(way: str, size: MemorySize, seed: int) -> dict[str, float]:
    """`measure` in a process of its own.

    Raises:
        UserError: that process failed; as a rule because memory ran out.
    """
    task = {"way": way, "size": asdict(size), "seed": seed}
    return in_process("t2i_credit.measure.bench.memory", task, f"{way} log-probs")


def in_process(module: str, task: Mapping[str, Any], what: str) -> dict[str, float]:
    """What a module prints of a task as JSON, in a process of its own.

    Raises:
        UserError: that process failed; as a rule because memory ran out.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(task)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["killed; too little memory?"]
        raise UserError(
            f"bench: measuring the memory of {what} ended with code {done.returncode}: {reason[0]}"
        )
    return dict(json.loads(done.stdout))


def main() -> Any:
    """Entry point of the measuring process: a task as JSON in, the measurement as JSON out."""
    task = json.loads(sys.argv[1])
    print(json.dumps(measure(task["way"], MemorySize(**task["size"]), task["seed"])))


if __name__ == "__main__":
    main()
