"""From trl's metrics and rollouts to the run folder: the names of the images where they mean the same. Trains nothing.

Shapes: B answers, G of each prompt, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from transformers import TrainerCallback

from ..config.text import TextConfig
from ..credit.gcpo import contrast, shown_kind
from .arguments import updates_per_step

# trl's name -> ours, where both mean the same
_NAMES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "lr",
    "entropy": "entropy",
    "kl": "kl",
    "frac_reward_zero_std": "zero_spread",
    "clip_ratio/region_mean": "clip_frac",
    "credit_max": "credit_max",
    "credit_top20": "credit_top20",
    "signed_contrast": "signed_contrast",
    "gold": "gold",
    "gold_missing": "gold_missing",
    "completions/mean_length": "answer_length",
    "completions/clipped_ratio": "truncated",
    "step_time": "time/step",
}

Report = Callable[[int, Mapping[str, float]], None]


def renamed(logs: Mapping[str, Any]) -> dict[str, float]:
    """trl's metrics of a step in our names; references of gold do not count in `reward`."""
    found = {ours: logs[theirs] for theirs, ours in _NAMES.items() if theirs in logs}
    found["reward"] = logs.get("reward_sampled", logs["reward"])
    for name, value in logs.items():
        if name.startswith("rewards/") and name.endswith("/mean") and "reward_sampled" not in logs:
            found[f"reward/{name.split('/')[1]}"] = value
    return found


class MetricsCallback(TrainerCallback):
    """Writes every step's metrics, and reports them.

    Args:
        run: a RunWriter, or whatever stands for it in a process that writes nothing.
        report: called with the step and its metrics.
        samples: how many answers were sampled since the start.
    """

    def __init__(self, run: Any, report: Report, samples: Callable[[], int]) -> None:
        self.run, self.report, self.samples = run, report, samples

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Called by trl after the updates of each step, and once at the end with totals that no step has."""
        if "loss" in logs and state.is_world_process_zero:
            updates = updates_per_step(args)
            step = state.global_step // updates
            metrics = renamed(logs) | {"samples": self.samples()}
            metrics["time/step"] *= updates  # trl's is that of an update
            self.run.append_metrics(step, metrics)
            self.report(step, metrics)


class StepRecorder:
    """Keeps some groups of some steps in the run folder.

    Args:
        run: a RunWriter, or whatever stands for it in a process that writes nothing.
        tokenizer: of the model.
        config: which steps and groups are kept, and the credit, whose kind of contrast is shown.
        group_size: G.
        updates: trl's steps in one of ours.
    """

    def __init__(
        self, run: Any, tokenizer: Any, config: TextConfig, *, group_size: int, updates: int
    ) -> None:
        self.run, self.tokenizer, self.config = run, tokenizer, config
        self.group_size, self.updates = group_size, updates

    def wants(self, step: int) -> bool:
        """The same for every process: looking takes a pass of the model."""
        step = self._ours(step)
        every, last = self.config.log.samples_every, self.config.train.steps
        return step == 1 or step % every == 0 or step == last

    def __call__(self, rollout: TextRollout) -> None:
        count = min(len(rollout.prompts), self.config.log.groups * self.group_size)
        samples = [self._sample(rollout, row) for row in range(count)]
        self.run.write_text_step(self._ours(rollout.step), samples, group_size=self.group_size)

    def _ours(self, step: int) -> int:
        """Our step that one of trl's belongs to; both count from 1."""
        return (step - 1) // self.updates + 1

    def _sample(self, rollout: TextRollout, row: int) -> dict[str, Any]:
        """One answer with a value per token in every list; what the loss leaves out has credit 0."""
        kept = rollout.sampled[row]
        tokens = rollout.tokens[row][kept].tolist()
        fields = {name: values[row][kept] for name, values in rollout.fields.items()}
        lists: dict[str, Any] = {"logprobs": fields["logprobs"], "entropy": fields["entropy"]}
        if "negative_logprobs" in fields:
            lists["negative_logprobs"] = fields["negative_logprobs"]
            lists["contrast"] = self._contrast(fields)
        lists["credit"] = rollout.credit[row][kept]
        lists["token_advantages"] = rollout.token_advantages[row][kept]
        return {
            "index": row,
            "group": row // self.group_size,
            "prompt": rollout.prompts[row],
            "negative": None if rollout.negatives is None else rollout.negatives[row],
            "completion": self.tokenizer.decode(tokens, skip_special_tokens=True),
            "reward": float(rollout.rewards[row]),
            "reward_parts": {n: float(part[row]) for n, part in rollout.reward_parts.items()},
            "advantage": float(rollout.advantages[row]),
            "gold": bool(rollout.gold[row]),
            "tokens": [self.tokenizer.decode([token]) for token in tokens],
            **{name: values.tolist() for name, values in lists.items()},
        }

    def _contrast(self, fields: Mapping[str, Tensor]) -> Tensor:
        """(T) evidence of the credit's kind; of credit that has none, the published one."""
        positive, full_kl = fields["logprobs"], fields.get("full_kl")
        kind = shown_kind(self.config.credit.params, full_kl)
        negative, mask = fields["negative_logprobs"], positive.isfinite()
        return contrast(positive, negative, mask, kind=kind, full_kl=full_kl)


@dataclass(frozen=True)
class TextRollout:
    """The completions that one process sampled, groups in order, and their credit.

    Attributes:
        step: the optimizer step that they are first used in, from 1.
        prompts: B prompts, as trl takes them: texts or lists of messages.
        negatives: B negative prompts, or None.
        tokens: (B, T) int64.
        mask: (B, T) bool, True = counts in the loss.
        sampled: (B, T) bool, True = of the completion; a cut-off one that the loss leaves out is here.
        rewards: (B,) weighted; a reference answer has its own.
        reward_parts: {name: (B,)} before the weight.
        advantages: (B,).
        credit: (B, T), row mean 1 over the mask.
        token_advantages: (B, T).
        fields: {name: (B, T)}: logprobs, entropy and, where there are negative prompts, negative_logprobs, at
            temperature 1; whatever else the credit reads.
        gold: (B,) bool, True = a reference answer and not a sample of the model.
    """

    step: int
    prompts: list[Any]
    negatives: list[Any] | None
    tokens: Tensor
    mask: Tensor
    sampled: Tensor
    rewards: Tensor
    reward_parts: Mapping[str, Tensor]
    advantages: Tensor
    credit: Tensor
    token_advantages: Tensor
    fields: Mapping[str, Tensor]
    gold: Tensor


class Watch(Protocol):
    """Someone who looks at rollouts in training."""

    def wants(self, step: int) -> bool:
        """Whether to be called at this step: what is shown beyond the credit's own needs costs a pass."""
        ...

    def __call__(self, rollout: TextRollout) -> None: ...
