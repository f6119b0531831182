"""Writes recorded_losses.json: losses and gradients of trl's own `GRPOTrainer._compute_loss`, and DGPO's weights from
NumPy in float64, on a few rows with ragged masks. Holds no test. Needs the pip extra text.

    python tests/support/record_losses.py
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

FILE = Path(__file__).with_name("recorded_losses.json")
LENGTHS, LONGEST, CODES = (7, 3, 5, 1), 7, 11
MASK = np.arange(LONGEST) < np.array(LENGTHS)[:, None]
CLIP_LOW, CLIP_HIGH = 0.2, 0.28
LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo")
KL_COEFS = (0.0, 0.05)


def inputs() -> dict[str, Any]:
    """Log-probs that have moved far enough for both clips to bite, advantages of both signs, uneven credit."""
    draw = np.random.default_rng(605)
    shape = (len(LENGTHS), LONGEST)
    old = -3 * draw.random(shape)
    credit = np.where(MASK, draw.random(shape) * 3, 0)
    credit /= credit.sum(1, keepdims=True) / MASK.sum(1, keepdims=True)
    return {
        "logprobs": old
        + 0.25 * draw.standard_normal(shape)
        + np.array([[0.2], [-0.1], [0], [0.4]]),
        "old_logprobs": old,
        "ref_logprobs": old + 0.3 * draw.standard_normal(shape),
        "token_advantages": np.array([[1.3], [-0.9], [-1.1], [0.7]]) * credit,
        "mask": MASK,
    }


class Trainer(SimpleNamespace):
    """What `_compute_loss` reads of a trainer. The log-probs are given, so there is no model."""

    def _get_per_token_logps_and_entropies(self, *_: Any, **__: Any) -> tuple[Any, Any, None]:
        return self.given, torch.zeros_like(self.given.detach()), None


def trl_loss(given: dict[str, Any], loss_type: str, level: str, kl_coef: float) -> dict[str, Any]:
    """Loss and gradient, float64, of one batch without accumulation."""
    from trl import GRPOTrainer

    logprobs, old, ref, advantages = (
        torch.tensor(np.array(given[name]), dtype=torch.float64)
        for name in ("logprobs", "old_logprobs", "ref_logprobs", "token_advantages")
    )
    mask = torch.tensor(np.array(given["mask"])).long()
    logprobs.requires_grad_(True)
    alone = SimpleNamespace(
        num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x, sync_gradients=True
    )
    trainer = Trainer(
        given=logprobs,
        accelerator=alone,
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        loss_type=loss_type,
        importance_sampling_level=level,
        beta=kl_coef,
        epsilon_low=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
        max_completion_length=LONGEST,
        current_gradient_accumulation_steps=1,
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
    )
    batch = {
        "prompt_ids": mask[:, :1],
        "prompt_mask": mask[:, :1],
        "completion_ids": mask,
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": old,
        "ref_per_token_logps": ref,
        "num_items_in_batch": mask.sum(),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, batch)
    loss.backward()
    named = {"loss_type": loss_type, "importance_sampling_level": level, "beta": kl_coef}
    return {**named, "loss": loss.item(), "gradient": logprobs.grad.tolist()}


def trl_losses(given: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        trl_loss(given, loss_type, level, kl_coef)
        for loss_type in LOSS_TYPES
        for level in ("token", "sequence")
        for kl_coef in KL_COEFS
    ]


def dgpo(tau: float, kappa: float) -> dict[str, Any]:
    """2605.03327 written out: h = 1 - sum sqrt(pi pi_ref), H = entropy / ln V, w = N softmax(h H^kappa / tau) over the row."""
    draw = np.random.default_rng(3327)
    ref = 2 * draw.standard_normal((*MASK.shape, CODES))
    logits = ref + draw.standard_normal(ref.shape)
    pi, pi_ref = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (logits, ref))
    hellinger = 1 - np.sqrt(pi * pi_ref).sum(-1)
    entropy = -(pi * np.log(pi)).sum(-1) / np.log(CODES)
    weights = np.exp(hellinger * entropy**kappa / tau) * MASK
    weights *= MASK.sum(1, keepdims=True) / weights.sum(1, keepdims=True)
    arrays = {"logits": logits, "ref_logits": ref, "hellinger": hellinger, "entropy": entropy}
    arrays |= {"mask": MASK, "credit": weights}
    return {"tau": tau, "kappa": kappa, **{name: array.tolist() for name, array in arrays.items()}}


def main() -> None:
    import trl

    given = {name: array.tolist() for name, array in inputs().items()}
    recorded = {
        "trl": trl.__version__,
        "clip": [CLIP_LOW, CLIP_HIGH],
        "inputs": given,
        "losses": trl_losses(given),
        "dgpo": [dgpo(0.5, 1.0), dgpo(0.05, 2.0)],
    }
    FILE.write_text(json.dumps(recorded) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
