"""A run of token credit and one of gold with given completions, by as many processes as start it. Holds no test."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_texts import Scripted, questions, right, settings, shade

from t2i_credit.text.settings import PUBLISHED_NEGATIVE, TextCreditConfig
from t2i_credit.text.trainer import CreditGRPOTrainer

PARTS = {
    "gcpo": (
        shade,
        TextCreditConfig("guidance_contrast", negative=PUBLISHED_NEGATIVE),
        {"loss_type": "dapo"},
    ),
    "refresh": (
        shade,
        TextCreditConfig(
            {"name": "guidance_contrast", "kind": "abs", "refresh": True},
            negative=PUBLISHED_NEGATIVE,
        ),
        {"loss_type": "grpo", "num_iterations": 2},
    ),
    "dgpo": (
        shade,
        TextCreditConfig({"name": "distribution_guided", "tau": 0.01}),
        {"loss_type": "dr_grpo", "beta": 0.1, "num_iterations": 2},
    ),
    "gold": (
        right,
        TextCreditConfig(gold="answer"),
        {"importance_sampling_level": "sequence", "loss_type": "grpo"},
    ),
}


class Given(Scripted, CreditGRPOTrainer):
    script = ("4.", "six of it", "42!.", "a.", ".", "nine.", "0123456789", "no.")


def run(folder: Path, name: str, processes: int) -> None:
    """Two steps of 8 completions; leaves name.json and name.safetensors in the folder."""
    reward, credit, changed = PARTS[name]
    # with more processes than one, a group of 8 lies on both
    args = settings(
        folder / "out",
        per_device_train_batch_size=8 // processes,
        num_generations=8,
        optim="sgd",
        learning_rate=0.1,
        shuffle_dataset=False,
        **changed,
    )
    trainer = Given(str(folder / "model"), reward, args, questions(), credit=credit)
    trainer.train()
    if trainer.accelerator.is_main_process:
        rows = [row for row in trainer.state.log_history if "loss" in row]
        (folder / f"{name}.json").write_text(json.dumps(rows))
        weights = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        save_file(weights, folder / f"{name}.safetensors")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for part in PARTS:
        run(Path(sys.argv[1]), part, 2)
    # without it a process may be aborted while it ends
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
