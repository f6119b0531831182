"""Shared toys: a generator of a few thousand random weights and prompts that it knows. Holds no test."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2i_credit.cli.commands import main
from t2i_credit.interfaces import Prompt, RewardFn, Rollout
from t2i_credit.models.embedded_model import EmbeddedConfig, EmbeddedModel, build_text_tokenizer
from t2i_credit.prompts.files import save_prompts
from t2i_credit.rollout.sampling import sample_rollout

WORDS = ["a", "photo", "of", "red", "blue", "circle", "square", "left"]
PROMPTS = (
    Prompt("a red circle"),
    Prompt("a photo of a blue square left of a red circle"),
    Prompt("a blue square", negative="a red circle"),
    Prompt("a photo of a red square", negative=""),
)


@dataclass(frozen=True)
class WideConfig(EmbeddedConfig):
    """Two rows of three tokens, so that a swap of width and height shows."""

    @property
    def grid(self) -> tuple[int, int]:
        return 2, 3


def tiny_model(
    config: type[EmbeddedConfig] = EmbeddedConfig, *, seed: int = 0, contrast: float = 10.0
) -> EmbeddedModel:
    """A generator of 2 x 2 tokens (16 x 16 pixels) and 32 codes; the same seed gives the same weights.

    Args:
        config: `EmbeddedConfig`, or a subclass with another grid.
        contrast: factor on head and text embedding, so that prompts and guidance matter.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = config(
            image_size=16,
            patch=4,
            vq_channels=(8, 8),
            code_dim=4,
            codebook_size=32,
            hidden_size=32,
            layers=2,
            heads=2,
        )
        model = EmbeddedModel(sizes, build_text_tokenizer(WORDS)).eval()
        with torch.no_grad():
            model.image_head.weight.mul_(contrast)
            model.language_model.get_input_embeddings().weight.mul_(contrast)
            model.vq.quantize.embedding.weight.normal_()  # far apart, so that codes look different
    return model


def wide_rollout(seed: int = 3, **fields: bool) -> tuple[EmbeddedModel, Rollout]:
    """A generator of 2 x 3 tokens and four images of each of its prompts."""
    model = tiny_model(WideConfig)
    return model, sample_rollout(model, PROMPTS, group_size=4, cfg_scale=2.0, seed=seed, **fields)


def write_tiny_model(folder: Path) -> Path:
    """The model folder of `tiny_model`."""
    tiny_model().save_pretrained(folder)
    return folder


def late_tokens(
    fields: Mapping[str, Tensor], mask: Tensor, advantages: Tensor, *, power: float = 1.0
) -> Tensor:
    """Later tokens matter."""
    assert {"logprobs", "negative_logprobs", "entropy"} <= set(fields)
    raw = torch.arange(1.0, mask.shape[1] + 1) ** power
    return (raw / raw.mean()).expand(mask.shape)


def bright(*, above: float = 0.6, sign: float = 1.0) -> RewardFn:
    """The share of an image's values that lie above a limit, times `sign`."""
    return lambda images, prompts: sign * (images > above).float().mean((1, 2, 3))


def lit(*, above: float = 0.5) -> RewardFn:
    """1 for an image whose mean value lies above a limit, 0 for the others."""
    return lambda images, prompts: (images.mean((1, 2, 3)) > above).float()


def constant(*, value: float = 0.0) -> RewardFn:
    """The same for every image."""
    return lambda images, prompts: torch.full((len(images),), value)


def broken(*, after: int = 0) -> RewardFn:
    """`bright`, but the last image of every call after the first `after` ones gets NaN."""
    calls = []

    def reward(images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        calls.append(len(images))
        found = bright()(images, prompts)
        if len(calls) > after:
            found[-1] = torch.nan
        return found

    return reward


def greedy_for_memory(*, of: str = "torch") -> RewardFn:
    """Runs out of memory: of this machine's, by torch or by Python; or of a GPU's, as that would say it."""

    def reward(images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        if of == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return torch.tensor(bytearray(2**62)) if of == "python" else endless()

    return reward


def endless() -> Any:
    """More than any machine has, as a reward's images or for a model."""
    return torch.empty(2**60)


def command_line(arguments: Sequence[str], output: Path) -> None:
    """Runs t2i-credit in a process of its own, with everything that it prints in a file."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["t2i-credit", *arguments]
    main()


def recipe(folder: Path, **sections: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration for the model `write_tiny_model` left in `folder`/model; keys of `sections` are changed.

    Six steps of 2 prompts x 4 images with a checkpoint and kept samples every third; the run is `folder`/runs/run.
    """
    base: dict[str, Any] = {
        "model": {"name": str(folder / "model")},
        "prompts": {"source": str(folder / "prompts.jsonl"), "per_step": 2},
        "rollout": {"group_size": 4, "cfg_scale": 2.0},
        "reward": {"toys:bright": {}},
        "optim": {"lr": 1e-2},
        "train": {
            "steps": 6,
            "checkpoint_every": 3,
            "out": str(folder / "runs"),
            "name": "run",
            "trackers": [],
            "threads": 1,
        },
        "log": {"samples_every": 3, "groups": 1, "probes": 1},
    }
    if not (folder / "model").exists():
        write_tiny_model(folder / "model")
        save_prompts(PROMPTS, folder / "prompts.jsonl")
    merged = {name: {**base.get(name, {}), **sections.get(name, {})} for name in {*base, *sections}}
    return merged | {"reward": sections.get("reward", base["reward"])}
