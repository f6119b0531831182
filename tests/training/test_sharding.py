"""Two gloo processes do what one does, whole (DDP) or in parts (`fully_shard`), and leave whole checkpoints."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from repository import SUPPORT
from safetensors.torch import load_file, save_file
from tiny_checkpoints import tiny_emu3, tiny_janus, write_tiny_llamagen
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from toys import PROMPTS, recipe, tiny_model

import t2i_credit
from t2i_credit.api.parts import prepare
from t2i_credit.config.plugins import find_plugin
from t2i_credit.config.schema import Config, parse_config
from t2i_credit.credit.entry import as_entry
from t2i_credit.credit.table import CREDIT
from t2i_credit.errors import ConfigError
from t2i_credit.models import load_pretrained
from t2i_credit.models.emu3 import Emu3ImageModel
from t2i_credit.models.janus import JanusImageModel
from t2i_credit.rollout.sampling import sample_rollout
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.training.processes import (
    distribute,
    gather_rollout,
    gather_rows,
    gathered,
    micro_batches,
    my_micro_batches,
    my_share,
    require_shardable,
    whole,
)
from t2i_credit.training.tune import cast_parameters, choose_trained, frozen_reference
from t2i_credit.training.update import PolicyUpdate

SIZE = 2  # samples of each of three prompts: one prompt for the first process, two for the second
ADVANTAGES = torch.tensor([1.0, -1.0, 0.5, -0.5, -2.0, 2.0])
STEPS = 5
# what fully_shard gathers with; the second name is that of older ones, torch 2.9 among them
GATHER = next(n for n in ("all_gather_single", "all_gather_into_tensor") if hasattr(dist, n))
WHOLE = {"sharding": "none"}
LORA = {"tune": {"lora_rank": 2}}


@dataclass(frozen=True)
class Case:
    """A way to train.

    Attributes:
        sections: of the configuration.
        optimizer: sgd or adamw.
        dtype: number format of the weights.
        model: which one.
        chunk: token positions whose logits exist at once; None = the model's own choice, which is all of these.
    """

    sections: Mapping[str, Any] = field(default_factory=dict)
    optimizer: str = "sgd"
    dtype: torch.dtype = torch.float32
    model: str = "embedded"
    chunk: int | None = None


CASES = {
    "full-sgd": Case(),
    "full-adamw": Case({}, "adamw", torch.float64),
    "lora-sgd": Case(LORA),
    "lora-adamw": Case(LORA, "adamw", torch.float64),
    # a reference that is compared in the policy's pass, clipped gradients, recomputed layers
    "hellinger-sgd": Case(
        {
            "credit": {"name": "distribution_guided"},
            "loss": {"kl_coef": 0.0},
            "optim": {"max_grad_norm": 0.01},
            "tune": {"recompute": True},
        }
    ),
    "modules-sgd": Case({"tune": {"modules": ["layers.1"]}}),
    # adapters stay float32, so that a layer has parameters of two number formats
    "lora-bfloat16": Case(LORA, dtype=torch.bfloat16),
    # whole in every process (DDP)
    "whole-full-sgd": Case({"train": WHOLE}),
    "whole-full-adamw": Case({"train": WHOLE}, "adamw", torch.float64),
    "whole-lora-sgd": Case({"train": WHOLE} | LORA),
    "whole-lora-adamw": Case({"train": WHOLE} | LORA, "adamw", torch.float64),
    # log-probs in chunks that are recomputed in the backward pass, in the adapters of real generators too
    "chunks": Case(chunk=3),
    "whole-chunks": Case({"train": WHOLE}, chunk=3),
    "janus": Case(model="janus", chunk=5),
    "whole-janus-lora": Case({"train": WHOLE} | LORA, model="janus", chunk=5),
    "emu3": Case(model="emu3", chunk=5),
    "whole-emu3": Case({"train": WHOLE}, model="emu3", chunk=5),
    "llamagen-lora": Case(LORA, model="llamagen", chunk=5),
    # its first gradients are steep: in float32 five steps magnify the order of a sum to 2e-5 on some processors
    "whole-llamagen": Case({"train": WHOLE}, dtype=torch.float64, model="llamagen", chunk=5),
}


def settings(case: Case) -> Config:
    base: dict[str, dict[str, Any]] = {
        "rollout": {"group_size": SIZE, "cfg_scale": 2.0},
        "loss": {"kl_coef": 0.1, "ratio_guard": None},
        "optim": {"max_grad_norm": None},
        # a pass for each prompt, so that the first process has one to spare
        "train": {"sharding": "full", "micro_batch_size": SIZE},
    }
    names = {*base, *case.sections}
    return parse_config({k: {**base.get(k, {}), **case.sections.get(k, {})} for k in names})


def model_of(case: Case, folder: Path) -> Any:
    """The untrained model, with its adapter if it gets one; `folder` holds the one that has to be read."""
    if case.model == "janus":
        model: Any = JanusImageModel(*tiny_janus(side=2))
    elif case.model == "emu3":
        model = Emu3ImageModel(*tiny_emu3())
    elif case.model == "llamagen":
        model = load_pretrained(str(folder / "llamagen"))
    else:
        model = tiny_model()
    if case.chunk is not None:
        model.logits_at_once = case.chunk * model.codebook_size
        assert SIZE * model.grid[0] * model.grid[1] > case.chunk
    cast_parameters(model, case.dtype)
    choose_trained(model, settings(case).tune, seed=0)
    return model


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def steps_of(case: Case, accelerator: Accelerator, folder: Path) -> dict[str, Tensor]:
    """Tokens of each step, gradients of the first one, and parameters after five; the same in every process."""
    config, model = settings(case), model_of(case, folder)
    reference = frozen_reference(model)
    prepared = distribute(model, reference, accelerator, config.train.sharding)
    shared = accelerator.num_processes > 1 and config.train.sharding == "full"
    assert shared == isinstance(prepared, FSDPModule)
    if shared:
        assert all(isinstance(p, DTensor) for p in model.language_model.parameters())
        assert all(isinstance(p, DTensor) for p in trained(model).values())
    optimizers = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    lr = {"sgd": 0.1, "adamw": 1e-3}[case.optimizer]
    optimizer = optimizers[case.optimizer](trained(model).values(), lr=lr)
    update = PolicyUpdate(
        config,
        model=prepared,
        sampler=model,
        reference=reference,
        credit=as_entry(find_plugin(config.credit.name, CREDIT, "credit.name")),
        optimizer=optimizer,
        accelerator=accelerator,
    )
    prompts, found = PROMPTS[:3], {}
    mine = my_share(len(prompts), accelerator)
    for step in range(STEPS):
        with gathered(model), patch.object(dist, GATHER, wraps=getattr(dist, GATHER)) as gathers:
            part = sample_rollout(
                model,
                prompts[mine],
                group_size=SIZE,
                cfg_scale=2.0,
                seed=step,
                batch_size=SIZE,
                first_sample=mine.start * SIZE,
            )
        if shared:  # two layers and the rest, once each
            assert gathers.call_count == 3, gathers.call_count
            assert all(isinstance(p, DTensor) for p in model.language_model.parameters())
        rollout = gather_rollout(part, prompts, accelerator)
        found[f"tokens.{step}"] = rollout.tokens
        update(step, rollout, ADVANTAGES, update.credit(rollout, ADVANTAGES))
        if step == 0:
            found |= {
                f"gradient.{n}": whole(p.grad)
                for n, p in trained(model).items()
                if p.grad is not None
            }
    return found | {f"after.{n}": whole(p.detach()) for n, p in trained(model).items()}


def work(folder: Path) -> None:
    """What each of two processes does: every case, which the first one writes down, then a step of a run."""
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    for mine in (torch.tensor([accelerator.is_main_process]), torch.rand(1)):  # of one prompt, both
        everyone = accelerator.gather(mine.float())
        assert torch.equal(gather_rows(mine, 1, accelerator), everyone[:1].to(mine.dtype))
    for name, case in CASES.items():
        found = steps_of(case, accelerator, folder)
        if accelerator.is_main_process:
            save_file({k: v.contiguous() for k, v in found.items()}, folder / f"{name}.safetensors")
    config = run_config(folder, "both", steps=3, sharding="full")
    t2i_credit.train(config, resume=True, warn=lambda line: None)


def run_config(folder: Path, name: str, **train: Any) -> dict[str, Any]:
    """Three prompts a step; with eps 1 AdamW does not magnify rounding in small gradients."""
    return recipe(
        folder,
        prompts={"per_step": 3},
        loss={"kl_coef": 0.1},
        optim={"lr": 1.0, "eps": 1.0},
        tune={"ema": 0.5},
        train={"micro_batch_size": 4, "name": name, "checkpoint_every": 1, **train},
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes wrote what they found: every case, and step 3 of a run that one process began."""
    folder = tmp_path_factory.mktemp("both")
    write_tiny_llamagen(folder / "llamagen")
    t2i_credit.train(run_config(folder, "both", steps=2))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = os.environ | {
        "PYTHONPATH": str(SUPPORT),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [*command, "--nproc_per_node", "2", __file__, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one_does(name: str, both: Path) -> None:
    one = steps_of(CASES[name], Accelerator(cpu=True), both)
    two = load_file(both / f"{name}.safetensors")
    assert one.keys() == two.keys()
    start = model_of(CASES[name], both)
    moved = 0.0
    for key, ours in one.items():
        kind, _, rest = key.partition(".")
        if kind == "tokens":
            assert torch.equal(two[key], ours), key
        elif kind == "gradient":
            assert float((two[key] - ours).norm()) <= 1e-6 * float(ours.norm()), key
        else:
            assert (two[key] - ours).abs().max().item() <= 1e-5, key
            moved = max(moved, (ours - start.get_parameter(rest)).abs().max().item())
    assert moved > 1e-4  # it went somewhere


def test_checkpoints_are_whole_and_go_on_with_other_processes(both: Path) -> None:
    one = t2i_credit.train(run_config(both, "one", steps=4))
    two = t2i_credit.train(run_config(both, "both", steps=4), resume=True, warn=lambda line: None)
    for file in ("model.safetensors", "state.safetensors"):
        for step in (3, 4):  # written by two processes, then by one again
            ours, theirs = (load_file(run / f"checkpoints/{step:06d}" / file) for run in (one, two))
            assert theirs.keys() == ours.keys()
            for key, tensor in ours.items():
                torch.testing.assert_close(theirs[key], tensor, atol=1e-5, rtol=0, msg=key)
    for alone, shared in zip(RunReader(one).metrics(), RunReader(two).metrics(), strict=True):
        assert alone.keys() == shared.keys()
        for key in ("reward", "loss", "kl", "grad_norm"):
            assert shared[key] == pytest.approx(alone[key], rel=1e-4, abs=1e-6), key


def test_a_process_that_is_done_before_the_others_has_spare_passes() -> None:
    # 3 prompts of 4 samples, 2 at a time: the second process has 4 passes, the first one 2
    def of(index: int, *, together: bool) -> list[tuple[range, bool, bool]]:
        two = SimpleNamespace(num_processes=2, process_index=index)
        return my_micro_batches(12, 2, 4, two, together=together)

    mine = [(range(2), False, False), (range(2, 4), True, False)]
    assert of(0, together=False) == mine
    assert of(0, together=True) == mine + [(range(2, 4), True, True)] * 2
    theirs = of(1, together=True)
    assert [rows for rows, _, _ in theirs] == [range(i, i + 2) for i in (4, 6, 8, 10)]
    assert [(last, spare) for _, last, spare in theirs] == [(False, False)] * 3 + [(True, False)]


def test_micro_batches_hold_whole_groups_where_they_fit() -> None:
    assert micro_batches(range(4, 16), 6, 4) == [range(4, 8), range(8, 12), range(12, 16)]
    assert micro_batches(range(4, 12), 8, 4) == [range(4, 12)]
    assert micro_batches(range(4, 12), 3, 4) == [range(4, 7), range(7, 10), range(10, 12)]


def test_what_cannot_be_shared_out_is_refused() -> None:
    require_shardable(tiny_model())
    with pytest.raises(
        ConfigError, match=r"train\.sharding: .*; Linear has no language_model\.layers"
    ):
        require_shardable(nn.Linear(1, 1))


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_accelerates_own_sharding_is_refused(
    sharding: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    with pytest.raises(ConfigError, match=f"accelerate's own {kind} is refused: choose multi-GPU"):
        prepare(parse_config(recipe(tmp_path, train={"sharding": sharding})))


if __name__ == "__main__":
    work(Path(sys.argv[1]))
