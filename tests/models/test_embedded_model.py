"""The embedded generator: what a model must offer, and what padding and batches must not change."""

from __future__ import annotations

import pytest
import torch
from embedded_scores import BOTH, NEGATIVES, TEXTS, scores, some_tokens
from torch import Tensor
from toys import PROMPTS, WORDS, WideConfig, tiny_model

from t2i_credit.errors import ModelError
from t2i_credit.interfaces import ImageTokenModel
from t2i_credit.models.embedded_model import EmbeddedConfig, EmbeddedModel
from t2i_credit.rollout.sampling import sample_rollout


@pytest.fixture(scope="module")
def model() -> EmbeddedModel:
    return tiny_model()


# The contract -----------------------------------------------------------------------------------------------------


def test_the_embedded_model_is_an_image_token_model(model: EmbeddedModel) -> None:
    assert isinstance(model, ImageTokenModel)
    # 16 pixels, 4 of them in a patch, and one halving: 16 / (4 * 2) = 2 tokens a side
    assert model.grid == (2, 2) and model.codebook_size == 32
    assert model.codebook.shape == (32, 4)
    assert model.device == torch.device("cpu")


def test_decoding_gives_logits_of_every_sample_under_both_prompts(model: EmbeddedModel) -> None:
    state = model.expand(model.prefill(model.condition(TEXTS, NEGATIVES)), 3)
    for tokens in (None, some_tokens(12, model)[:, 0]):
        positive, negative = model.advance(state, tokens)
        assert negative is not None
        assert positive.shape == negative.shape == (12, 32)
    alone = model.expand(model.prefill(model.condition(TEXTS, None)), 3)
    positive_alone, nothing = model.advance(alone, None)
    assert positive_alone.shape == (12, 32) and nothing is None


def test_the_tokenizer_makes_images_of_codes_and_codes_of_images(model: EmbeddedModel) -> None:
    images = model.decode(some_tokens(3, model))
    assert images.shape == (3, 3, 16, 16)
    assert images.min() >= 0 and images.max() <= 1
    codes = model.encode(images)
    assert codes.shape == (3, 4) and codes.dtype == torch.int64
    assert codes.min() >= 0 and codes.max() < 32


def test_patches_are_taken_apart_and_put_together_without_loss(model: EmbeddedModel) -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    patches = model.to_patches(images)
    assert patches.shape == (2, 3 * 4 * 4, 4, 4)
    torch.testing.assert_close(model.from_patches(patches), images, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(1, 3, 16, 24), (1, 3, 8, 8), (1, 1, 16, 16)])
def test_images_of_another_size_are_refused(model: EmbeddedModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"this model takes \(3, 16, 16\)"):
        model.encode(torch.zeros(shape))


def test_tokens_lie_row_by_row_on_a_grid_that_is_not_square() -> None:
    wide = tiny_model(WideConfig)
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9]])
    seen: list[Tensor] = []
    wide.vq.post_quant_conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = wide.decode(tokens)
    assert images.shape == (1, 3, 16, 24)  # 2 rows and 3 columns of 8 x 8 pixels
    (latents,) = seen
    for row in range(2):
        for column in range(3):
            code = wide.codebook[tokens[0, 3 * row + column]]
            assert torch.equal(latents[0, :, row, column], code)


def test_codes_of_an_image_come_row_by_row() -> None:
    model = tiny_model()
    seen: list[Tensor] = []
    model.vq.quant_conv.register_forward_hook(lambda _, inputs, output: seen.append(output))
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    codes = model.encode(images)
    (latents,) = seen
    raster = latents[0].permute(1, 2, 0).flatten(0, 1)  # (H * W, C)
    assert torch.equal(codes[0], torch.cdist(raster, model.codebook).argmin(1))


# Training pass and decoding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [EmbeddedConfig, WideConfig])
def test_sampled_tokens_scored_again_give_the_stored_logprobs(
    config: type[EmbeddedConfig],
) -> None:
    model = tiny_model(config)
    rollout = sample_rollout(model, PROMPTS, group_size=3, cfg_scale=2.0, temperature=0.8, seed=3)
    with torch.no_grad():
        found = model(
            model.condition(TEXTS, NEGATIVES),
            rollout.tokens,
            want=(*BOTH, "guided_logprobs", "entropy"),
            cfg_scale=2.0,
            temperature=0.8,
        )
    for name, again in found.items():
        torch.testing.assert_close(again, getattr(rollout, name), atol=1e-5, rtol=0, msg=name)
    assert (found["logprobs"] - found["negative_logprobs"]).abs().max() > 0.1  # not by accident


def test_a_prompt_scores_the_same_alone_and_padded_beside_longer_ones(model: EmbeddedModel) -> None:
    tokens = some_tokens(4, model)
    together = scores(model, model.condition(TEXTS, NEGATIVES), tokens)
    for i in range(4):
        alone = scores(model, model.condition([TEXTS[i]], [NEGATIVES[i]]), tokens[i : i + 1])
        torch.testing.assert_close(together[:, i : i + 1], alone, atol=1e-5, rtol=0)


def test_the_samples_of_a_group_score_the_same_together_and_one_by_one(
    model: EmbeddedModel,
) -> None:
    tokens, condition = some_tokens(8, model), model.condition(TEXTS, NEGATIVES)
    grouped = scores(model, condition, tokens)  # 4 prompts, 2 samples of each
    singly = scores(model, condition.select(torch.arange(4).repeat_interleave(2)), tokens)
    torch.testing.assert_close(grouped, singly, atol=1e-5, rtol=0)


def test_the_gradient_is_the_same_for_groups_and_for_samples_one_by_one() -> None:
    found = []
    for index in (torch.arange(4), torch.arange(4).repeat_interleave(2)):
        model = tiny_model()
        condition = model.condition(TEXTS, NEGATIVES).select(index)
        out = model(condition, some_tokens(8, model), want=["guided_logprobs"], cfg_scale=2.0)
        out["guided_logprobs"].sum().backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        scale = grad.abs().max().item()
        torch.testing.assert_close(grad, found[1][name], atol=1e-5 * scale + 1e-6, rtol=0, msg=name)


def test_a_token_depends_on_earlier_tokens_only(model: EmbeddedModel) -> None:
    tokens, condition = some_tokens(4, model), model.condition(TEXTS, NEGATIVES)
    changed = tokens.clone()
    changed[:, 2] = (changed[:, 2] + 1) % 32
    before, after = (scores(model, condition, t) for t in (tokens, changed))
    torch.testing.assert_close(after[:, :, :2], before[:, :, :2], atol=1e-6, rtol=0)
    assert (after[:, :, 3] - before[:, :, 3]).abs().max() > 0.01


@pytest.mark.parametrize("negatives", [NEGATIVES, None])
def test_selecting_prompts_equals_conditioning_on_the_selected_ones(
    model: EmbeddedModel, negatives: list[str | None] | None
) -> None:
    picked = [2, 0, 0]
    chosen = model.condition(TEXTS, negatives).select(torch.tensor(picked))
    direct = model.condition(
        [TEXTS[i] for i in picked], None if negatives is None else [negatives[i] for i in picked]
    )
    assert chosen.prompts == direct.prompts == 3
    assert chosen.has_negatives == direct.has_negatives == (negatives is not None)
    assert torch.equal(chosen.inputs, direct.inputs)  # the padding of the longest one is gone
    assert torch.equal(chosen.attention_mask, direct.attention_mask)


# Prompts ----------------------------------------------------------------------------------------------------------


def test_the_null_prompt_is_as_long_as_its_own_positive(model: EmbeddedModel) -> None:
    condition = model.condition(TEXTS[:2], [None, None])  # 3 and 11 words
    lengths = condition.attention_mask.sum(1).tolist()
    assert lengths == [3 + 2, 11 + 2, 3 + 2, 11 + 2]  # <bos> and <image> around the words
    pad = model.text_tokenizer.pad_token_id
    shown = condition.inputs[2][condition.attention_mask[2]].tolist()
    assert shown[1:-1] == [pad] * 3
    assert (shown[0], shown[-1]) == tuple(condition.inputs[1][[0, -1]].tolist())


def test_the_empty_text_is_a_prompt_without_words_and_not_the_null_prompt(
    model: EmbeddedModel,
) -> None:
    empty = model.condition(["a red circle"], [""])
    assert empty.attention_mask.sum(1).tolist() == [5, 2]
    tokens = some_tokens(1, model)
    null = model.condition(["a red circle"], [None])
    difference = scores(model, empty, tokens)[1] - scores(model, null, tokens)[1]
    assert difference.abs().max() > 0.01


def test_a_null_prompt_does_not_depend_on_the_words_of_its_positive(model: EmbeddedModel) -> None:
    tokens = some_tokens(1, model)
    first, second = (
        scores(model, model.condition([text], [None]), tokens)
        for text in ("a red circle", "a blue square")
    )
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], second[0])


def test_upper_case_words_are_known(model: EmbeddedModel) -> None:
    lower, upper = (model.condition([t], None).inputs for t in ("a red circle", "A Red CIRCLE"))
    assert torch.equal(lower, upper)


def test_unknown_words_are_listed(model: EmbeddedModel) -> None:
    assert model.unknown_words("a photo of a green circle and a Cat") == ["green", "and", "cat"]
    assert model.unknown_words(" ".join(WORDS)) == []


def test_a_check_names_the_words_that_it_has_never_seen_and_refuses_what_is_too_long(
    model: EmbeddedModel,
) -> None:
    assert model.check([" ".join(WORDS)] * 3) == []
    said = model.check(["a red circle", "a green circle", "a photo of a green cat", "a red circle"])
    assert said == ["the model has never seen green, cat (2 of 3 prompts)"]
    with pytest.raises(ModelError, match="255 words"):
        model.check(["a red circle", "red " * 255])


def test_a_prompt_that_is_too_long_is_refused_with_the_limit(model: EmbeddedModel) -> None:
    model.condition(["red " * 254], None)  # with <bos> and <image>, the 256 places of the text
    with pytest.raises(ModelError, match=r"'red red .*': 255 words; the model takes at most 254"):
        model.condition(["red " * 255], None)
