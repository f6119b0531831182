"""Is the credit of text right? Whether it lies on the step that decides, and whether its tokens decide the reward.

The world of arithmetic says which characters decide (specificity); redrawing a token and going on from there says what
the token was worth (causality). Shapes: P prompts, G samples of each, B = P*G samples, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...advantages import group_normalized
from ...errors import ConfigError
from ...rollout.sampling import TIES, derive_seed
from ...text.sampling import LONGEST, TextSamples, continued, next_logprobs, rewards_of, sample
from ...worlds.arithmetic.chains import judge, labels
from ...worlds.arithmetic.mistakes import is_hard
from ...worlds.arithmetic.problems import dataset
from ...worlds.arithmetic.questions import negative, read, work
from ..intervals import Numbers, mean_interval, per_prompt, ratio_interval, share_interval
from .assigners import Assigner
from .causality import ENDS, ranked
from .localisation import auroc_within

OUTCOMES = ("right", "wrong")
FIELDS = frozenset(
    {"logprobs", "negative_logprobs", "entropy", "full_kl"}
)  # what an assigner may read


def truth_of_text(
    model: Any,
    tokenizer: Any,
    assigners: Sequence[Assigner],
    *,
    problems: int = 100,
    group_size: int = 8,
    split: str = "train",
    continuations: int = 1,
    seed: int = 0,
    batch: int = 256,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Specificity and causality of credit assigners and of the baselines uniform, random and entropy.

    Args:
        model, tokenizer: a causal language model of transformers, one token per character.
        assigners: that read no other fields than FIELDS.
        problems, group_size, split: P problems of a split, G completions of each.
        continuations: see `causality`.
        seed: of problems, completions and draws.
        batch: rows that run together.
        progress: called with (parts done, of).

    Returns:
        samples, correct (their mean reward), specificity and causality; see there.

    Raises:
        ConfigError: an assigner reads another field.
    """
    for one in assigners:
        if missing := sorted(one.needs - FIELDS):
            raise ConfigError(f"{one.name}: needs {', '.join(missing)}, which text does not have")
    prompts = [row["prompt"] for row in dataset(problems, seed, split)]
    against = [negative(prompt) for prompt in prompts]
    samples = sample(
        model, tokenizer, prompts, against, group_size=group_size, seed=seed, batch=batch
    )
    scores = scores_of(assigners, samples, seed=seed)
    total = 1 + len(ENDS) * len(scores)
    parts = iter(range(1, total + 1))
    progress(next(parts), total)
    return {
        "samples": len(samples.texts),
        "correct": float(samples.rewards.mean()),
        "specificity": specificity(samples, scores),
        "causality": causality(
            model,
            tokenizer,
            samples,
            scores,
            continuations=continuations,
            seed=seed,
            batch=batch,
            done=lambda: progress(next(parts), total),
        ),
    }


def scores_of(
    assigners: Sequence[Assigner], samples: TextSamples, *, seed: int
) -> dict[str, Tensor]:
    """{name: (B, T) float32, at least 0, 0 off the mask}: the baselines first, then every assigner."""
    noise = torch.rand(samples.mask.shape, generator=torch.Generator().manual_seed(seed))
    advantages = group_normalized(samples.rewards, samples.group_size)
    found = {
        "uniform": samples.mask.float(),
        "random": noise * samples.mask,
        "entropy": samples.entropy,
    }
    for one in assigners:
        fields = {name: getattr(samples, name) for name in one.needs}
        found[one.name] = one.entry.assign(fields, samples.mask, advantages, **one.params)
    return found


# Specificity ------------------------------------------------------------------------------------------------------


def deciding_tokens(prompt: str, text: str, length: int) -> tuple[NDArray[np.bool_], ...] | None:
    """Which characters decide the answer and which are filler words: two (length,) bool; None without any.

    Of a wrong answer the first wrong step decides: the digits of its result, or of its operands if the step does not
    belong there. Of a right answer those results decide that are usually wrong, the hard steps'.
    """
    found, verdict = labels(text), judge(prompt, text)
    if found is None or (verdict.correct and verdict.kind != "right"):
        return None
    if verdict.decisive is None:
        steps = [index for index, step in enumerate(work(read(prompt))) if is_hard(step)]
    else:
        steps = [verdict.decisive]
    roles = (
        ("operand",) if verdict.kind == "lost" and len(verdict.wrong) == 1 else ("result", "answer")
    )
    decisive, filler = np.zeros(length, dtype=bool), np.zeros(length, dtype=bool)
    for at, (role, step) in enumerate(zip(found.role, found.step, strict=True)):
        decisive[at] = step in steps and role in roles
        filler[at] = role == "filler"
    return (decisive, filler) if decisive.any() else None


def specificity(samples: TextSamples, scores: Mapping[str, Tensor]) -> dict[str, Any]:
    """Whether scores lie on the characters that decide.

    Args:
        samples: completions of a character-level model: token t of a completion is its character t.
        scores: {name: (B, T)}, at least 0.

    Returns:
        For "right" and "wrong" answers: samples used; share: of their tokens that decide; per name: auroc (decisive
        against all other tokens), against_filler (AUROC of decisive against filler words) and lift (mean score of a
        decisive token over that of all tokens), each [mean, low, high] over prompts.
    """
    length = samples.tokens.shape[1]
    mask = samples.mask.numpy()
    marks = [
        deciding_tokens(p, t, length) for p, t in zip(samples.prompts, samples.texts, strict=True)
    ]
    none = np.zeros(length, dtype=bool)
    decisive = np.stack([none if m is None else m[0] for m in marks])
    filler = np.stack([none if m is None else m[1] for m in marks])
    right = samples.rewards.numpy() > 0
    share = decisive.sum(1) / mask.sum(1)
    columns = {
        name: {
            "auroc": auroc_within(score.numpy(), decisive, mask),
            "against_filler": auroc_within(score.numpy(), decisive, decisive | filler),
            "lift": _lift(score.numpy(), decisive, mask),
        }
        for name, score in scores.items()
    }
    interval: dict[str, Callable[[Any], Any]] = {
        "auroc": share_interval,
        "against_filler": share_interval,
        "lift": mean_interval,
    }
    found: dict[str, Any] = {}
    for outcome, chosen in zip(OUTCOMES, (right, ~right), strict=True):
        used = chosen & decisive.any(1)
        column = partial(per_prompt, group_size=samples.group_size, used=used)
        found[outcome] = {
            "samples": int(used.sum()),
            "share": share_interval(column(share)),
            "assigners": {
                name: {what: interval[what](column(values)) for what, values in row.items()}
                for name, row in columns.items()
            },
        }
    return found


def _lift(
    scores: NDArray[Any], on: NDArray[np.bool_], mask: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Mean score of the tokens `on` over the mean of all: (B,), nan where there are none or all scores are 0."""
    inside = np.where(on, scores, 0).sum(1) * mask.sum(1)
    whole = np.where(mask, scores, 0).sum(1) * on.sum(1)
    return np.divide(inside, whole, out=np.full(len(scores), np.nan), where=whole > 0)


# Causality --------------------------------------------------------------------------------------------------------


def causality(
    model: Any,
    tokenizer: Any,
    samples: TextSamples,
    scores: Mapping[str, Tensor],
    *,
    continuations: int = 1,
    seed: int,
    batch: int = 256,
    done: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """What a score's highest (or lowest) token was worth.

    Every token gets one fresh draw, given those before it; those whose draw is another token can be changed. The one of
    them with the highest score is replaced by its draw and the answer sampled on from there, and sampled on from the
    token as it was. The effect is the difference in reward, counted so that it is positive where the token made a right
    answer right or a wrong one wrong.

    Args:
        scores: {name: (B, T)}; "random" must be among them: it is what the others are divided by.
        continuations: answers sampled on from each token.
        seed: of the draws, which are the same for all scores, and of the continuations.
        done: called after each score and end.

    Returns:
        changeable: mean number of tokens per sample that can be changed; per name highest and lowest, each with all,
        right and wrong [effect, low, high], and ratio (highest against random's, whose highest and lowest
        are two draws of the same).
    """
    fresh = _redrawn(model, samples, seed=seed, batch=batch)
    ties = derive_seed(TIES, seed)  # not those of the random score
    changeable = (fresh != samples.tokens) & samples.mask
    counts = changeable.any(1).long()
    sign = torch.where(samples.rewards > 0, 1.0, -1.0)
    columns: dict[tuple[str, str], Numbers] = {}
    for name, score in scores.items():
        for end in ENDS:
            chosen = ranked(score, changeable, counts, highest=end == "highest", seed=ties)
            values = [
                _values(model, tokenizer, samples, chosen, tokens, continuations, seed, batch)
                for tokens in (samples.tokens, fresh)
            ]
            effect = (sign * (values[0] - values[1])).numpy().astype(np.float64)
            columns[name, end] = np.where(counts.numpy() > 0, effect, np.nan)
            done()
    right = samples.rewards.numpy() > 0
    outcomes = {"all": right | ~right, "right": right, "wrong": ~right}

    def of(outcome: str, effect: Numbers) -> Numbers:
        return per_prompt(effect, samples.group_size, outcomes[outcome])

    chance = np.mean([of("all", columns["random", end]) for end in ENDS], axis=0)
    return {
        "changeable": float(changeable.sum(1).float().mean()),
        "assigners": {
            name: {
                end: {
                    outcome: mean_interval(of(outcome, columns[name, end])) for outcome in outcomes
                }
                for end in ENDS
            }
            | {"ratio": ratio_interval(of("all", columns[name, "highest"]), chance)}
            for name in scores
        },
    }


def _redrawn(model: Any, samples: TextSamples, *, seed: int, batch: int) -> Tensor:
    """(B, T) one fresh draw of every token under its prompt, given the tokens before it."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for start in range(0, len(samples.rows), batch):
        part = slice(start, start + batch)
        found = next_logprobs(model, samples.rows[part], samples.tokens[part], samples.mask[part])
        drawn = torch.multinomial(found.exp().flatten(0, 1), 1, generator=generator)
        parts.append(drawn.view(found.shape[:2]))
    return torch.cat(parts)


def _values(
    model: Any,
    tokenizer: Any,
    samples: TextSamples,
    chosen: Tensor,
    tokens: Tensor,
    continuations: int,
    seed: int,
    batch: int,
) -> Tensor:
    """(B,) mean reward of the answers that go on from the chosen token (one True a row, or none) of `tokens`."""
    begun, prompts = [], []
    places = chosen.int().argmax(1).tolist()
    for row, prompt, before, there, place in zip(
        samples.rows, samples.prompts, samples.tokens.tolist(), tokens.tolist(), places, strict=True
    ):
        begun += [row + before[:place] + [there[place]]] * continuations
        prompts += [prompt] * continuations
    ended = [row[-1] == tokenizer.eos_token_id for row in begun]
    open_rows = [row for row, over in zip(begun, ended, strict=True) if not over]
    added = iter(
        continued(model, tokenizer, open_rows, max_new_tokens=LONGEST, seed=seed, batch=batch)
    )
    starts = [len(row) for row in samples.rows for _ in range(continuations)]
    answers = [
        row[start:] + ([] if over else next(added))
        for row, start, over in zip(begun, starts, ended, strict=True)
    ]
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return rewards_of(prompts, texts).view(-1, continuations).mean(1)
