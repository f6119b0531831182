"""A recipe that sets something in every section, and how one is refused. Holds no test."""

from __future__ import annotations

import pytest

from t2i_credit.config.schema import load_config
from t2i_credit.errors import ConfigError

EXAMPLE = """\
model: {name: shapes}
prompts: {tasks: [counting, colors], negative: ""}
rollout: {group_size: 8, cfg_scale: 3}
reward:
  geneval: {weight: 1}
  clip: {weight: 5e-1, model: ViT-B-32}
credit: {name: guidance_contrast, kind: abs, top: 3e-1}
loss: {kl_coef: 0.03, kl_weight: credit}
optim: {lr: 4e-4, betas: [0.9, 0.95], schedule: cosine}
train: {precision: no, trackers: []}
"""


def refusal(name: str, *overrides: str) -> str:
    """The one line with which a configuration is refused."""
    with pytest.raises(ConfigError) as caught:
        load_config(name, overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message
