"""What every adapter of a published architecture owes the rest of the toolkit, on tiny checkpoints in the real layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_causal import write_tiny_liquid, write_tiny_rows, write_tiny_simplear
from tiny_checkpoints import write_tiny_emu3, write_tiny_janus, write_tiny_llamagen
from torch import Tensor

from t2i_credit.errors import ModelError
from t2i_credit.interfaces import ImageTokenModel, Prompt
from t2i_credit.models import MODELS, load_pretrained
from t2i_credit.rollout.sampling import sample_rollout

WRITERS = {
    "janus": write_tiny_janus,
    "emu3": write_tiny_emu3,
    "llamagen_t2i": write_tiny_llamagen,
    "causal_image": write_tiny_liquid,
    "causal_image: padding as null prompt, TorchScript": write_tiny_simplear,
    "causal_image: row ends": write_tiny_rows,
}
TEXTS = ["a red circle", "a photo of two blue square left of a red circle", "a blue square"]
NEGATIVES = [None, "a blue circle", ""]
PROMPTS = [Prompt(t, negative=n) for t, n in zip(TEXTS, NEGATIVES, strict=True)]
BOTH = ("logprobs", "negative_logprobs")


@pytest.fixture(scope="module", params=list(WRITERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return WRITERS[request.param](tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load_pretrained(str(folder))


def some_tokens(count: int, model: Any, seed: int = 1) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    shape = (count, model.grid[0] * model.grid[1])
    return torch.randint(model.codebook_size, shape, generator=draw)


def scores(model: Any, condition: Any, tokens: Tensor) -> Tensor:
    """(2, B, T) log-probs under both prompts."""
    with torch.no_grad():
        found = model(condition, tokens, want=BOTH)
    return torch.stack([found[name] for name in BOTH])


def test_every_architecture_is_tested_here() -> None:
    elsewhere = {"t2i_credit_embedded", "llamagen_c2i"}  # whose prompts are of their own
    assert set(MODELS) == elsewhere | {name.split(":")[0] for name in WRITERS}


def test_an_adapter_is_an_image_token_model(model: Any) -> None:
    assert isinstance(model, ImageTokenModel)
    assert model.codebook.shape[0] == model.codebook_size
    assert not model.training


def test_sampled_tokens_scored_again_give_the_stored_logprobs(model: Any) -> None:
    rollout = sample_rollout(model, PROMPTS, group_size=2, cfg_scale=3.0, temperature=0.8, seed=3)
    with torch.no_grad():
        found = model(
            model.condition(TEXTS, NEGATIVES),
            rollout.tokens,
            want=(*BOTH, "guided_logprobs", "entropy"),
            cfg_scale=3.0,
            temperature=0.8,
        )
    for name, again in found.items():
        torch.testing.assert_close(again, getattr(rollout, name), atol=1e-4, rtol=0, msg=name)
    assert (found["logprobs"] - found["negative_logprobs"]).abs().max() > 0.1  # not by accident


def test_a_prompt_scores_the_same_alone_and_padded_beside_longer_ones(model: Any) -> None:
    tokens = some_tokens(3, model)
    together = scores(model, model.condition(TEXTS, NEGATIVES), tokens)
    for i in range(3):
        alone = scores(model, model.condition([TEXTS[i]], [NEGATIVES[i]]), tokens[i : i + 1])
        torch.testing.assert_close(together[:, i : i + 1], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("recompute", [False, True])
def test_groups_samples_one_by_one_and_recomputed_layers_give_the_same_gradient(
    folder: Path, recompute: bool
) -> None:
    found, statistics = [], []
    for index in (torch.arange(3), torch.arange(3).repeat_interleave(2)):
        model = load_pretrained(str(folder))
        model.recompute = recompute and len(index) == 3  # against the plain pass, one by one
        condition = model.condition(TEXTS, NEGATIVES).select(index)
        out = model(condition, some_tokens(6, model), want=["guided_logprobs"], cfg_scale=2.0)
        out["guided_logprobs"].sum().backward()
        statistics.append(out["guided_logprobs"].detach())
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        assert not any(module.training for module in model.modules())
    torch.testing.assert_close(statistics[0], statistics[1], atol=1e-4, rtol=0)
    assert found[0].keys() == found[1].keys() and len(found[0]) > 10
    for name, grad in found[0].items():
        scale = grad.abs().max().item()
        torch.testing.assert_close(grad, found[1][name], atol=1e-4 * scale + 1e-6, rtol=0, msg=name)


def test_recomputed_layers_run_again_in_the_backward_pass(folder: Path) -> None:
    model = load_pretrained(str(folder))
    runs: list[int] = []
    attention = model.language_model.layers[0].self_attn
    attention.register_forward_hook(lambda *_: runs.append(1))
    for recompute, expected in ((False, 1), (True, 2)):
        runs.clear()
        model.recompute = recompute
        out = model(model.condition(TEXTS[:1], None), some_tokens(1, model), want=["logprobs"])
        out["logprobs"].sum().backward()
        assert len(runs) == expected


def test_a_token_depends_on_earlier_tokens_only(model: Any) -> None:
    tokens, condition = some_tokens(3, model), model.condition(TEXTS, NEGATIVES)
    changed = tokens.clone()
    changed[:, 2] = (changed[:, 2] + 1) % model.codebook_size
    before, after = (scores(model, condition, t) for t in (tokens, changed))
    torch.testing.assert_close(after[:, :, :2], before[:, :, :2], atol=1e-5, rtol=0)
    assert (after[:, :, 3:] - before[:, :, 3:]).abs().max() > 0.01


def test_selecting_prompts_equals_conditioning_on_the_selected_ones(model: Any) -> None:
    picked = [2, 0, 0]
    chosen = model.condition(TEXTS, NEGATIVES).select(torch.tensor(picked))
    direct = model.condition([TEXTS[i] for i in picked], [NEGATIVES[i] for i in picked])
    assert chosen.prompts == direct.prompts == 3 and chosen.has_negatives
    assert torch.equal(chosen.attention_mask, direct.attention_mask)
    torch.testing.assert_close(chosen.inputs, direct.inputs, atol=1e-6, rtol=0)


def test_pixels_can_be_differentiated_by_code_vectors(model: Any) -> None:
    tokens = some_tokens(2, model)
    vectors = model.vectors(tokens).detach().requires_grad_()
    images = model.decode_vectors(vectors)
    torch.testing.assert_close(images, model.decode(tokens), atol=1e-6, rtol=0)
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    (found,) = torch.autograd.grad((images * weights).sum(), vectors)
    assert found.shape == vectors.shape and found.isfinite().all()
    # the second picture's pixels alone: the first one's codes do nothing
    (second,) = torch.autograd.grad((model.decode_vectors(vectors) * weights)[1].sum(), vectors)
    assert not second[0].any() and second[1].any()
    torch.testing.assert_close(second[1], found[1], atol=1e-5, rtol=1e-3)


def test_codes_become_images_and_images_codes(model: Any) -> None:
    images = model.decode(some_tokens(2, model))
    assert images.shape == (2, 3, *model.image_size) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    codes = model.encode(images)
    assert codes.shape == (2, model.grid[0] * model.grid[1]) and codes.dtype == torch.int64
    with pytest.raises(ModelError, match="this model takes"):
        model.encode(torch.zeros(1, 3, 4, 4))


def test_the_image_tokenizer_and_the_text_head_are_frozen(folder: Path) -> None:
    model = load_pretrained(str(folder))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    out = model(model.condition(TEXTS, NEGATIVES), some_tokens(3, model), want=BOTH)
    sum(part.sum() for part in out.values()).backward()
    unused = {n for n, p in model.named_parameters() if n in trained and p.grad is None}
    assert not unused, (
        unused
    )  # what is trained is also run, so that processes need no search for it
    assert any(name.startswith(("vq.", "image_networks.")) or "vqmodel" in name for name in frozen)


def test_a_saved_model_comes_back_bit_for_bit(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "again")
    again = load_pretrained(str(tmp_path / "again"))
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    tokens = some_tokens(3, model)
    conditions = [m.condition(TEXTS, NEGATIVES) for m in (model, again)]
    assert torch.equal(scores(model, conditions[0], tokens), scores(again, conditions[1], tokens))


def test_a_prompt_that_does_not_fit_the_model_is_refused_or_cut(model: Any) -> None:
    long = "red " * 500
    if model.__class__.__name__ == "LlamaGenModel":  # as the original does
        assert model.condition([long], None).inputs.shape[1] == model.caption_length
        return
    with pytest.raises(ModelError, match="the model takes at most"):
        model.condition([long], None)
