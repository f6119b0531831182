"""The bench of a Janus against transformers' own generation: that both do the work, not how fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from toys import PROMPTS

from t2i_credit.advantages import ADVANTAGES
from t2i_credit.api.models import trainable_model
from t2i_credit.api.parts import Parts
from t2i_credit.errors import UserError
from t2i_credit.interfaces import Prompt
from t2i_credit.measure.bench import janus
from t2i_credit.measure.bench.command import run
from t2i_credit.measure.bench.timing import table


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The architecture with one layer, 3 x 3 tokens and 16 codes."""
    monkeypatch.setitem(janus.SIZES, "tiny", (1, 32, 2, 48))
    return janus.random_janus("tiny", side=3, codes=16, vocabulary=64)


def brightness(images: Tensor, prompts: Sequence[Prompt]) -> tuple[Tensor, dict[str, Tensor]]:
    found = images.mean((1, 2, 3))
    return found, {"brightness": found}


def measured(model: Any, part: str, *overrides: str, repeats: int = 3) -> dict[str, Any]:
    config = janus.bench_config("tiny", ["rollout.group_size=2", *overrides], janus=True)
    model, reference = trainable_model(config, model, compared=config.loss.kl_coef > 0)
    advantage, credit = ADVANTAGES["group_normalized"], config.credit.entry
    made = Parts(config, model, reference, brightness, PROMPTS, advantage, credit)
    return run(made, parts=(part,), repeats=repeats)


def test_both_generate_all_tokens_of_the_same_random_model(tiny: Any) -> None:
    assert tiny.grid == (3, 3) and not tiny.training
    runs: list[int] = []
    tiny.language_model.register_forward_hook(lambda *_: runs.append(1))
    row, versus = measured(tiny, "rollout")["rows"]
    # with and without log-probs, ours and theirs: a prompt and 8 tokens fed back, once to warm up and three times
    assert len(runs) == 4 * 4 * 9
    assert versus["ours"] > 0 and versus["rival"] > 0 and versus["repeats"] == 3
    assert "JanusForConditionalGeneration.generate" in table({"rows": [versus]})[0]["what"]
    assert "both prompts' log-probs and entropy" in row["what"]


# two cached decode rows and the policy's pass, of two rows where it is guided; then what else is asked for
RENEWED = ("credit.name=guidance_contrast", "credit.refresh=true")
TWICE = ("loss.updates_per_rollout=2", "loss.old=recompute")


@pytest.mark.parametrize(
    ("policy", "more", "passes"),
    [
        ("conditional", (), 3.0),
        ("guided", (), 4.0),
        ("conditional", ("loss.kl_coef=0.03", "loss.kl_weight=credit", *RENEWED), 5.0),
        ("conditional", ("loss.kl_coef=0.03", "tune.lora_rank=2"), 4.0),
        ("guided", TWICE, 8.0),
    ],
)
def test_a_step_takes_the_forward_passes_that_its_settings_need(
    tiny: Any, policy: str, more: tuple[str, ...], passes: float
) -> None:
    report = measured(tiny, "step", f"loss.policy={policy}", *more, repeats=1)
    assert report["passes"] == {"counted": passes, "expected": passes}
    assert report["settings"]["grid"] == [3, 3] and report["settings"]["dtype"] == "float32"


def test_prompts_of_a_random_janus_become_ids_that_depend_on_the_text(tiny: Any) -> None:
    condition = tiny.condition(["a red circle", "a blue square"], [None, None])
    ids, null = condition.inputs[:2], condition.inputs[2:]
    assert ids.shape == (2, janus.PROMPT) and not torch.equal(ids[0], ids[1])
    assert ids[0, 0] == tiny.bos and ids[0, -1] == tiny.image_start
    assert (null[:, 1:-1] == tiny.pad).all()


@pytest.mark.parametrize(("name", "backbone"), [("janus-pro-1b", 1443), ("janus-pro-7b", 6491)])
def test_a_random_janus_pro_has_the_true_sizes(
    monkeypatch: pytest.MonkeyPatch, name: str, backbone: int
) -> None:
    # D (102400 + L (4 D + 3 I + 2) + 1) weights in L layers of width D and inner width I with 102,400 words, in
    # millions; the image tokenizer is LlamaGen's VQ-16, of which the official README tells 72
    monkeypatch.setattr(janus, "local_device", lambda: "meta")  # no memory for the weights
    model = janus.random_janus(name)
    parts = (model.language_model, model.janus.model.vqmodel)
    counts = [round(sum(p.numel() for p in part.parameters()) / 1e6) for part in parts]
    assert counts == [backbone, 72]


def test_an_architecture_that_has_no_random_weights_is_refused() -> None:
    with pytest.raises(UserError, match="known: janus-small, janus-pro-1b, janus-pro-7b"):
        janus.random_janus("shapes")
