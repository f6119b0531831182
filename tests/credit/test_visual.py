"""How much a token decides the look of the picture: by hand, and in sampling as in a training pass."""

from __future__ import annotations

import math

import pytest
import torch
from toys import PROMPTS, WideConfig, tiny_model

from t2i_credit.credit.table import CREDIT
from t2i_credit.credit.visual import figure_distance, visual_evidence
from t2i_credit.errors import UserError
from t2i_credit.rollout.logprobs import code_shift, code_spread, entropy, token_statistics
from t2i_credit.rollout.sampling import sample_rollout

# three codes: the first two look the same, whatever their length, the third is at a right angle
CODES = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])


def logits(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities).log()


def test_codes_that_look_alike_have_entropy_but_no_spread() -> None:
    alike = logits(0.5, 0.5, 0.0)
    assert entropy(alike).item() == pytest.approx(math.log(2))
    assert code_spread(alike, CODES).item() == pytest.approx(0.0)


def test_spread_is_half_the_mean_squared_distance_of_two_draws() -> None:
    # mean vector (1/2, 1/2): 1 - 1/2; and two draws differ with probability 1/2, by a squared distance of 2
    assert code_spread(logits(0.25, 0.25, 0.5), CODES).item() == pytest.approx(0.5)


def test_shift_is_the_squared_distance_of_the_mean_looks() -> None:
    # means (3/4, 1/4) and (1/4, 3/4)
    found = code_shift(logits(0.25, 0.5, 0.25), logits(0.25, 0.0, 0.75), CODES)
    assert found.item() == pytest.approx(0.5)
    # probability that moves between codes that look alike moves nothing
    same = code_shift(logits(0.9, 0.0, 0.1), logits(0.0, 0.9, 0.1), CODES)
    assert same.item() == pytest.approx(0.0, abs=1e-12)


def test_sampling_and_a_training_pass_agree_on_spread_and_shift() -> None:
    model = tiny_model(WideConfig)
    rollout = sample_rollout(
        model, PROMPTS, group_size=3, cfg_scale=2.0, seed=0, code_spread=True, code_shift=True
    )
    condition = model.condition([p.text for p in PROMPTS], [p.negative for p in PROMPTS])
    found = model(condition, rollout.tokens, want=["code_spread", "code_shift"])
    assert rollout.code_spread is not None and rollout.code_shift is not None
    assert torch.allclose(found["code_spread"], rollout.code_spread, atol=1e-5)
    assert torch.allclose(found["code_shift"], rollout.code_shift, atol=1e-5)
    assert rollout.code_spread.std() > 0.01 and rollout.code_shift.max() > 0.01


def test_a_shift_needs_the_negative_branch_even_without_guidance() -> None:
    model = tiny_model(WideConfig)
    rollout = sample_rollout(
        model, PROMPTS, group_size=2, cfg_scale=1.0, seed=0, negative_branch=False, code_shift=True
    )
    assert rollout.code_shift is not None and rollout.code_spread is None


def test_statistics_of_looks_need_the_codebook() -> None:
    features, tokens = torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="code_spread needs the codebook"):
        token_statistics(["code_spread"], tokens, features, None, lambda x: x)


def test_both_is_the_product_on_the_mask() -> None:
    fields = {
        "code_spread": torch.tensor([[0.5, 1.0, 0.2]]),
        "code_shift": torch.tensor([[2.0, 3.0, 1.0]]),
    }
    mask = torch.tensor([[True, False, True]])
    found = visual_evidence(fields, mask, kind="both")
    assert found.tolist() == [pytest.approx([1.0, 0.0, 0.2])]
    assert visual_evidence(fields, mask, kind="spread").tolist() == [pytest.approx([0.5, 0, 0.2])]


def test_figure_distance_is_half_the_chord_to_the_mean_look() -> None:
    # mean direction of three times (1, 0) and one time (0, 1): (3, 1) / sqrt(10), whatever the codes' lengths
    ground, figure = (torch.tensor([3.0, 1.0]) / math.sqrt(10)).tolist()
    found = figure_distance(CODES[torch.tensor([[0, 1, 0, 2]])])
    near, far = math.sqrt((1 - ground) / 2), math.sqrt((1 - figure) / 2)
    assert found.tolist() == [pytest.approx([near, near, near, far])]
    mean = torch.tensor([3.0, 1.0]) / math.sqrt(10)
    assert far == pytest.approx((torch.tensor([0.0, 1.0]) - mean).norm().item() / 2)


def test_a_picture_of_one_look_has_no_figure() -> None:
    assert figure_distance(CODES[torch.tensor([[0, 1, 1, 0]])]).tolist() == [[0.0] * 4]


def test_figure_is_open_tokens_that_stand_out() -> None:
    fields = {
        "code_spread": torch.tensor([[0.5, 0.0, 0.4]]),
        "figure_distance": torch.tensor([[0.0, 1.0, 0.5]]),
    }
    found = visual_evidence(fields, torch.ones(1, 3, dtype=torch.bool), kind="figure")
    assert found.tolist() == [pytest.approx([0.0, 0.0, 0.2])]


def test_a_missing_field_or_an_unknown_kind_is_refused() -> None:
    mask = torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(UserError, match="kind both needs code_shift"):
        visual_evidence({"code_spread": torch.ones(1, 2)}, mask, kind="both")
    with pytest.raises(UserError, match="kind is 'look'; allowed are spread, shift, both, figure"):
        visual_evidence({}, mask, kind="look")  # type: ignore[arg-type]


def test_each_kind_asks_for_what_it_reads() -> None:
    entry = CREDIT["visual"]
    assert entry.fields_needed() == {"code_spread"}
    assert entry.fields_needed(kind="shift") == {"code_shift"}
    assert entry.fields_needed(kind="both") == {"code_spread", "code_shift"}
    assert entry.fields_needed(kind="figure") == {"code_spread", "figure_distance"}
