"""A step runs the forward passes that the plan counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toys import recipe
from training_runs import silent

from t2i_credit import api
from t2i_credit.config.schema import parse_config
from t2i_credit.training.policy import passes_needed


@pytest.mark.parametrize(
    ("sections", "passes"),
    [
        # two cached decode rows; the policy's pass has one branch, or two if it is the guided one
        ({"loss": {"policy": "conditional"}}, 2 + 1),
        ({"loss": {"policy": "guided"}}, 2 + 2),
        ({"loss": {"policy": "conditional", "kl_coef": 0.1}}, 2 + 1 + 1),
        ({"loss": {"policy": "guided", "kl_coef": 0.1}}, 2 + 2 + 2),
        # contrast comes from the decode rows for nothing, unless it is to be that of the update
        ({"loss": {"policy": "conditional"}, "credit": {"name": "guidance_contrast"}}, 2 + 1),
        (
            {
                "loss": {"policy": "conditional"},
                "credit": {"name": "guidance_contrast", "refresh": True},
            },
            2 + 1 + 1,
        ),
        ({"credit": {"name": "guidance_contrast", "refresh": True}}, 2 + 2),
        (
            {
                "loss": {"policy": "conditional"},
                "credit": {"name": "top_entropy", "refresh": True},
            },
            2 + 1,
        ),
        # a reference for the credit, in the policy's form; with a KL term it is asked twice
        (
            {"loss": {"policy": "conditional"}, "credit": {"name": "distribution_guided"}},
            2 + 1 + 1,
        ),
        ({"credit": {"name": "distribution_guided"}}, 2 + 2 + 2),
        (
            {"credit": {"name": "distribution_guided"}, "loss": {"kl_coef": 0.1}},
            2 + 2 + 2 + 2,
        ),
        # of both branches at once, in a pass of its own
        (
            {
                "loss": {"policy": "conditional"},
                "credit": {"name": "guidance_contrast", "kind": "full_kl", "refresh": True},
            },
            2 + 1 + 2,
        ),
        # one pass of the reference serves the credit and the KL term
        (
            {
                "credit": {"name": "critical_tokens"},
                "loss": {"kl_coef": 0.1, "kl_weight": "credit"},
            },
            2 + 2 + 2,
        ),
        ({"credit": {"name": "similarity"}}, 2 + 2),
        # without guidance there is one branch, unless the credit wants the other
        ({"rollout": {"cfg_scale": 1.0}}, 1 + 1),
        ({"rollout": {"cfg_scale": 1.0}, "credit": {"name": "guidance_contrast"}}, 2 + 1),
        # several updates on the same samples
        ({"loss": {"updates_per_rollout": 3}}, 2 + 3 * 2),
        ({"loss": {"updates_per_rollout": 3, "old": "recompute"}}, 2 + 2 + 3 * 2),
        ({"train": {"micro_batch_size": 3}}, 2 + 2),
        ({"rollout": {"batch_size": 3}}, 2 + 2),
    ],
)
def test_a_step_runs_the_forward_passes_that_the_plan_counts(
    tmp_path: Path, sections: dict[str, dict[str, Any]], passes: int
) -> None:
    rollout = {"cfg_scale": 2.0, **sections.get("rollout", {})}
    config = recipe(
        tmp_path,
        **{**sections, "rollout": rollout},
        log={"samples_every": 100, "probes": 0},
    )
    config["train"] |= {"steps": 3, "checkpoint_every": 100}
    parts = api.prepare(parse_config(config))
    assert passes_needed(parts.config, parts.credit).total == passes
    held = config.get("loss", {}).get("kl_coef", 0) > 0
    needy = ("distribution_guided", "critical_tokens")
    held = held or config.get("credit", {}).get("name") in needy
    assert (parts.reference is not None) == held

    seen: list[int] = []
    for model in (parts.model, parts.reference):
        if model is not None:
            model.image_embedding.register_forward_hook(
                lambda _, inputs, output: seen.append(inputs[0].numel())
            )
    at: list[int] = []
    api.run_training(
        parts, resume=False, report=lambda step, metrics: at.append(sum(seen)), warn=silent
    )
    # step 2 keeps no samples; of the 4 tokens of 8 images the last one is never read
    assert (at[1] - at[0]) / (8 * 3) == passes
