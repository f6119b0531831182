"""Credit by the similarity of a group's samples, by hand."""

from __future__ import annotations

import pytest
import torch
from credit_batch import BATCH, GROUP_SIZE, TOKENS, advantages_of

from t2i_credit.credit.critical import group_similarity
from t2i_credit.credit.stage import opposed_similarity, similarity, similarity_kl_weight


def test_opposed_similarity_is_to_the_other_samples_with_a_product_of_advantages_not_above_zero():
    # advantages 1, -1, 0, 2: 0 and 3 are opposed to 1 and 2, 1 to 0, 2 and 3, 2 to all others
    east, north = [1.0, 0.0], [0.0, 1.0]
    vectors = torch.tensor([[east], [east], [north], [north]])
    found = opposed_similarity(vectors, torch.tensor([1.0, -1.0, 0.0, 2.0]), 4)
    expected = torch.tensor([[1 / 2], [1 / 3], [1 / 3], [1 / 2]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("field", [group_similarity, opposed_similarity])
def test_similarity_within_groups_follows_their_samples_and_no_other_group(field):
    draw = torch.Generator().manual_seed(8)
    vectors, advantages = torch.randn(BATCH, TOKENS, 5, generator=draw), advantages_of()

    def of(vectors, advantages):
        more = (advantages,) if field is opposed_similarity else ()
        return field(vectors, *more, GROUP_SIZE)

    order = torch.tensor([2, 0, 3, 1, 4, 5, 6, 7, 8, 9, 10, 11])
    expected = of(vectors, advantages)[order]
    found = of(vectors[order], advantages[order])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    other = vectors.clone()
    other[GROUP_SIZE:] = 0
    assert torch.equal(of(other, advantages)[:GROUP_SIZE], of(vectors, advantages)[:GROUP_SIZE])


def test_similarity_credit_is_half_the_distance_over_its_mean():
    # (1 - cos) / 2 = 0, 0.25, 0.5, 1, mean 0.4375
    found = similarity(torch.tensor([[1.0, 0.5, 0.0, -1.0]]), torch.ones(1, 4, dtype=torch.bool))
    expected = torch.tensor([[0.0, 0.571429, 1.142857, 2.285714]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_images_that_are_all_the_same_get_uniform_similarity_credit():
    tokens = torch.randint(0, 32, (1, 9), generator=torch.Generator().manual_seed(9)).repeat(4, 1)
    codebook = torch.randn(32, 7, generator=torch.Generator().manual_seed(10))
    field = opposed_similarity(codebook[tokens], torch.tensor([1.0, -1.0, 1.0, -1.0]), 4)
    assert torch.equal(similarity(field, torch.ones(4, 9, dtype=torch.bool)), torch.ones(4, 9))


def test_the_kl_weight_of_similarity_credit_is_lower_on_tokens_unlike_the_opposed_ones():
    # cos + 1 = 2, 1, 0.5, 0, clamped to at most 1
    mask = torch.tensor([[True] * 4 + [False]])
    found = similarity_kl_weight(torch.tensor([[1.0, 0.0, -0.5, -1.0, 0.0]]), mask)
    assert found.tolist() == [[1.0, 1.0, 0.75, 0.5, 0.0]]
