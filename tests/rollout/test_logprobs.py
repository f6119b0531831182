"""Statistics of logits, and their chunked, recomputed form above a head."""

from __future__ import annotations

import math
import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from t2i_credit.interfaces import Reference
from t2i_credit.rollout.logprobs import (
    STATISTICS,
    chunked_logprobs,
    code_shift,
    code_spread,
    entropy,
    full_kl,
    guided_logits,
    hellinger,
    taken_logprobs,
    token_statistics,
)

BATCH, TOKENS, WIDTH, CODES = 3, 10, 8, 50  # 30 positions: chunks of 7 leave a last one of 2
SCALE, TEMPERATURE = 2.5, 0.8


class CountingHead(torch.nn.Module):
    """A linear head that remembers how many rows each call had."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(drawn(CODES, WIDTH, seed=seed))
        self.calls: list[int] = []

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.calls.append(features.shape[:-1].numel())
        return features @ self.weight.T


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tokens_of() -> torch.Tensor:
    return torch.randint(CODES, (BATCH, TOKENS), generator=torch.Generator().manual_seed(9))


def features_of(seed: int) -> torch.Tensor:
    return drawn(BATCH, TOKENS, WIDTH, seed=seed)


def codebook_of() -> torch.Tensor:
    return drawn(CODES, 4, seed=8)


def plain_statistics(tokens, positive, negative, head, ref_positive, ref_negative, ref_head):
    """The definitions, written with whole (B, T, V) distributions in float64."""

    def distributions(c, u):
        guided = (u + SCALE * (c - u)) / TEMPERATURE
        return [x.double().log_softmax(-1) for x in (c, u, guided)]

    c, u, g = distributions(head(positive), head(negative))
    with torch.no_grad():
        ref_c, _, ref_g = distributions(ref_head(ref_positive), ref_head(ref_negative))

    def taken(log_p):
        return log_p.gather(-1, tokens[..., None])[..., 0]

    unit = codebook_of().double()
    unit = unit / unit.norm(dim=1, keepdim=True)
    look, negative_look = c.exp() @ unit, u.exp() @ unit

    def overlap(log_p, log_q):
        return 1 - (log_p.exp() * log_q.exp()).sqrt().sum(-1)

    return {
        "logprobs": taken(c),
        "negative_logprobs": taken(u),
        "guided_logprobs": taken(g),
        "entropy": -(c.exp() * c).sum(-1),
        "guided_entropy": -(g.exp() * g).sum(-1),
        "full_kl": (c.exp() * (c - u)).sum(-1),
        "code_spread": 1 - (look**2).sum(-1),
        "code_shift": ((look - negative_look) ** 2).sum(-1),
        "hellinger": overlap(c, ref_c),
        "guided_hellinger": overlap(g, ref_g),
    }


def compute(want, *, chunk_rows=7, requires_grad=True):
    """All inputs, the chunked result and the plain one for the same inputs."""
    positive, negative = (features_of(s).requires_grad_(requires_grad) for s in (0, 1))
    head, ref_head = CountingHead(2), CountingHead(3)
    reference = Reference(features_of(4), features_of(5), ref_head)
    found = token_statistics(
        want,
        tokens_of(),
        positive,
        negative,
        head,
        cfg_scale=SCALE,
        temperature=TEMPERATURE,
        reference=reference,
        codebook=codebook_of(),
        chunk_rows=chunk_rows,
    )
    calls = list(head.calls)
    expected = plain_statistics(
        tokens_of(),
        positive,
        negative,
        head,
        reference.features,
        reference.negative_features,
        ref_head,
    )
    return (positive, negative, head, ref_head, calls), found, expected


@pytest.mark.parametrize("chunk_rows", [1, 7, 30, 1000])
def test_chunked_statistics_equal_their_definitions(chunk_rows):
    _, found, expected = compute(STATISTICS, chunk_rows=chunk_rows)
    assert tuple(found) == STATISTICS
    for name in STATISTICS:
        assert found[name].shape == (BATCH, TOKENS) and found[name].dtype == torch.float32
        torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", STATISTICS)
def test_chunked_gradients_equal_those_of_the_definitions(name):
    (positive, negative, head, ref_head, _), found, expected = compute([name])
    inputs = [positive, negative, head.weight]
    pull = drawn(BATCH, TOKENS, seed=6)
    got = torch.autograd.grad((found[name] * pull).sum(), inputs, allow_unused=True)
    want = torch.autograd.grad((expected[name] * pull).sum(), inputs, allow_unused=True)
    for g, w in zip(got, want, strict=True):
        if g is None or w is None:  # a branch that the statistic does not depend on
            assert (g is None or not g.any()) and (w is None or not w.any())
        else:
            torch.testing.assert_close(g, w, rtol=1e-3, atol=1e-4)
    assert ref_head.weight.grad is None


def test_the_reference_never_receives_a_gradient():
    (_, _, _, ref_head, _), found, _ = compute(["hellinger", "guided_hellinger"])
    (found["hellinger"] + found["guided_hellinger"]).sum().backward()
    assert ref_head.weight.grad is None


@pytest.mark.parametrize("want", [["logprobs"], ["entropy"], ["logprobs", "entropy", "hellinger"]])
def test_the_negative_head_does_not_run_unless_something_needs_it(want):
    (_, _, _, _, calls), _, _ = compute(want)
    assert calls == [7, 7, 7, 7, 2]


def test_each_branch_runs_once_however_much_is_wanted():
    (_, _, _, _, calls), _, _ = compute(STATISTICS)
    assert sum(calls) == 2 * BATCH * TOKENS


def test_no_tensor_saved_for_the_backward_pass_holds_the_logits():
    shapes: list[torch.Size] = []

    def remember(saved: torch.Tensor) -> torch.Tensor:
        shapes.append(saved.shape)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda saved: saved):
        found = token_statistics(
            STATISTICS[:6],
            tokens_of(),
            features_of(0).requires_grad_(),
            features_of(1).requires_grad_(),
            CountingHead(2),
            cfg_scale=SCALE,
            chunk_rows=7,
        )
        sum(value.sum() for value in found.values()).backward()
    # recomputation shows one chunk at a time, never all 30 positions
    wide = [shape for shape in shapes if shape[-1:] == (CODES,)]
    assert all(shape[:-1].numel() <= 7 for shape in wide)

    shapes.clear()
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda saved: saved):
        logits = CountingHead(2)(features_of(0).requires_grad_())
        taken_logprobs(logits, tokens_of())
    assert any(shape.numel() == BATCH * TOKENS * CODES for shape in shapes)  # what is avoided


def test_each_chunk_is_recomputed_once_in_the_backward_pass_and_never_without_gradients():
    positive, head = features_of(0).requires_grad_(), CountingHead(2)
    found = chunked_logprobs(positive, head, tokens_of(), chunk=10)
    assert head.calls == [10, 10, 10]
    found.sum().backward()
    assert head.calls == [10] * 6
    with torch.no_grad():
        again = chunked_logprobs(positive, head, tokens_of(), chunk=10)
    assert head.calls == [10] * 9 and torch.equal(again, found.detach())


def test_chunked_logprobs_takes_flat_features_too():
    head, positive, tokens = CountingHead(2), features_of(0), tokens_of()
    flat = chunked_logprobs(positive.flatten(0, 1), head, tokens.flatten(), chunk=4)
    torch.testing.assert_close(
        flat.reshape(BATCH, TOKENS), chunked_logprobs(positive, head, tokens), atol=1e-6, rtol=1e-6
    )


def test_statistics_of_a_bfloat16_head_are_float32_of_its_logits():
    head = torch.nn.Linear(WIDTH, CODES, bias=False, dtype=torch.bfloat16)
    positive = features_of(0).bfloat16()
    found = chunked_logprobs(positive, head, tokens_of(), chunk=30)
    expected = taken_logprobs(head(positive).float(), tokens_of())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_without_guidance_the_guided_policy_is_the_tempered_positive_branch():
    head, positive = CountingHead(2), features_of(0)
    want = ["guided_logprobs", "guided_entropy"]
    found = token_statistics(want, tokens_of(), positive, None, head, temperature=0.5)
    logits = head(positive) / 0.5
    torch.testing.assert_close(found["guided_logprobs"], taken_logprobs(logits, tokens_of()))
    torch.testing.assert_close(found["guided_entropy"], entropy(logits))


def test_unknown_statistics_and_missing_inputs_are_refused_by_name():
    args = (tokens_of(), features_of(0), None, CountingHead(2))
    with pytest.raises(ValueError, match="logprob"):
        token_statistics(["logprob"], *args)
    for name in ("negative_logprobs", "full_kl"):
        with pytest.raises(ValueError, match=name):
            token_statistics([name], *args)
    with pytest.raises(ValueError, match="negative_features"):
        token_statistics(["guided_logprobs"], *args, cfg_scale=2.0)
    with pytest.raises(ValueError, match="reference"):
        token_statistics(["hellinger"], *args)
    reference = Reference(features_of(4), None, CountingHead(3))
    with pytest.raises(ValueError, match="negative"):
        token_statistics(
            ["guided_hellinger"],
            tokens_of(),
            features_of(0),
            features_of(1),
            CountingHead(2),
            cfg_scale=2.0,
            reference=reference,
        )


def test_guidance_moves_logits_away_from_the_negative_prompt():
    # u + s (c - u) = 1 + 3 (2 - 1) = 4, and 0 + 3 (-1 - 0) = -3; halved temperature doubles them
    c, u = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]])
    assert guided_logits(c, u, cfg_scale=3.0).tolist() == [[4.0, -3.0]]
    assert guided_logits(c, u, cfg_scale=3.0, temperature=0.5).tolist() == [[8.0, -6.0]]
    assert torch.equal(guided_logits(c, None, cfg_scale=1.0), c)
    with pytest.raises(ValueError, match="negative"):
        guided_logits(c, None, cfg_scale=2.0)


def test_entropy_and_kl_of_two_coins():
    # p = 1/2, 1/2, q = 0.8, 0.2: KL = ln(1/2) - (ln 0.8 + ln 0.2) / 2 = 0.223144; H(p) = ln 2
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.8, 0.2]]).log()
    assert full_kl(p + 1, q).item() == pytest.approx(0.223144, abs=1e-6)
    assert entropy(p - 7).item() == pytest.approx(math.log(2), abs=1e-6)


def test_codes_of_probability_zero_leave_values_and_gradients_finite():
    logits = torch.tensor([[0.0, 0.0, -math.inf]], requires_grad=True)
    other = torch.tensor([[1.0, 0.0, -math.inf]])
    total = entropy(logits) + full_kl(logits, other) + hellinger(logits, other)
    total.sum().backward()
    assert total.isfinite().all() and logits.grad.isfinite().all()


def test_looks_are_compared_in_float32_under_autocast_too() -> None:
    logits, negative = 8 * drawn(6, 512, seed=0), 8 * drawn(6, 512, seed=1)
    codes = drawn(512, 8, seed=2)
    spread, shift = code_spread(logits, codes), code_shift(logits, negative, codes)
    with torch.autocast("cpu", torch.bfloat16):
        found = code_spread(logits, codes), code_shift(logits, negative, codes)
    torch.testing.assert_close(found[0], spread, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1], shift, atol=1e-6, rtol=0)


class LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors that are made inside and still live.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self.seen:
                    self.seen.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return found

    def _freed(self, storage: int, size: int) -> None:
        self.seen.discard(storage)
        self.now -= size


def test_chunked_logprobs_hold_the_logits_of_a_chunk_where_plain_ones_hold_all() -> None:
    positions, codes, chunk = 1024, 512, 64
    features = drawn(positions, 4, seed=1).requires_grad_()
    head = torch.nn.Linear(4, codes, bias=False)
    taken = torch.randint(codes, (positions,), generator=torch.Generator().manual_seed(2))
    with LiveTensors() as plain:
        head(features).log_softmax(-1).gather(-1, taken[:, None])[:, 0].mean().backward()
    with LiveTensors() as chunked:
        chunked_logprobs(features, head, taken, chunk=chunk).mean().backward()
    all_logits, of_a_chunk = 4 * positions * codes, 4 * chunk * codes
    assert plain.peak >= 2 * all_logits
    # logits, their log-probs and their gradient; beside them what is as small as a feature or a token
    small = 4 * (2 * features.numel() + 2 * codes * 4 + 8 * positions)
    assert chunked.peak <= 4 * of_a_chunk + small < plain.peak / 8
