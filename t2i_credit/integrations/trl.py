"""Token credit for text: trl's GRPO trainer, whose advantages become one number per token. No trainer of its own.

    credit = TextCreditConfig(credit="guidance_contrast", negative=PUBLISHED_NEGATIVE)
    CreditGRPOTrainer(model, reward, args=GRPOConfig(...), train_dataset=dataset, credit=credit).train()

The credit functions are those of the images. Shapes: B completions of this process, G of each prompt, T tokens of the
longest completion, N = B times the number of processes, K reward functions.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..credit import token_advantages
from ..errors import ConfigError
from ..gold import failed_groups
from ..metrics import credit_metrics
from .trl_config import (
    PUBLISHED_NEGATIVE,
    REFERENCE_FIELDS,
    TextCreditConfig,
    check_arguments,
    check_model,
)
from .trl_version import require_tested_trl

require_tested_trl()

from accelerate.utils import is_peft_model  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402
from trl.trainer.utils import pad, use_adapter  # noqa: E402

from .trl_prompts import (  # noqa: E402
    check_chat_template,
    check_dataset,
    check_gold,
    gold_tokens,
    negative_prompt,
)
from .trl_rollout import TextRollout, Watch  # noqa: E402
from .trl_scoring import TextBatch, add_scoring_pass, evaluating, features, score  # noqa: E402

__all__ = ["PUBLISHED_NEGATIVE", "CreditGRPOTrainer", "TextCreditConfig", "TextRollout", "Watch"]

_OTHER_ROLLOUTS = ("tools", "rollout_func", "environment_factory")  # arguments of GRPOTrainer


class CreditGRPOTrainer(GRPOTrainer):
    """`trl.GRPOTrainer` with credit for every token, and reference answers for groups that fail.

    Args:
        model, reward_funcs, args, train_dataset: as in `trl.GRPOTrainer`, and so is everything else.
        credit: what to do; left out = uniform, which is plain `GRPOTrainer`, bit for bit.
        watch: shown this process's completions of a rollout in training.

    Raises:
        UserError: settings that make no sense together, missing columns, prompts or answers that cannot be used.
    """

    _tag_names = ["trl", "grpo", "t2i-credit"]  # noqa: RUF012, trl's own attribute

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        credit: TextCreditConfig | None = None,
        watch: Watch | None = None,
        **others: Any,
    ) -> None:
        self.credit = credit or TextCreditConfig()
        self.watch = watch
        args = GRPOConfig("credit-grpo") if args is None else args
        check_arguments(self.credit, args, {name: others.get(name) for name in _OTHER_ROLLOUTS})
        check_dataset(train_dataset, self.credit)
        check_dataset(eval_dataset, self.credit, "eval_dataset")
        super().__init__(
            model, reward_funcs, args, train_dataset, eval_dataset, processing_class, **others
        )
        check_chat_template(train_dataset, self._tokenizer)
        check_gold(train_dataset, self.credit, self._tokenizer, self.max_completion_length)
        check_model(self.model, self.credit)
        if self._is_vlm and not (self.credit.uniform and self.credit.gold is None):
            raise ConfigError(
                "processing_class: images in prompts are refused with token credit or gold"
            )
        self.needs = self.credit.needs
        self.renews = self.credit.renews
        self._judged: Tensor | None = None  # (N, K) rewards that are known before trl asks for them
        add_scoring_pass(self.model.get_base_model() if is_peft_model(self.model) else self.model)
        self.frozen = self._frozen() if self.needs & REFERENCE_FIELDS else None

    def _frozen(self) -> tuple[Any, Any] | None:
        """Backbone and head of the reference; None = the model itself with its adapter off."""
        if is_peft_model(self.model):
            return None
        if self.ref_model is not None:
            held = self.accelerator.unwrap_model(self.ref_model)
            return held.base_model, held.get_output_embeddings()
        backbone, head = copy.deepcopy((self.model.base_model, self.model.get_output_embeddings()))
        return backbone.requires_grad_(False).eval(), head.requires_grad_(False)

    # What trl calls

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._examples = inputs
        self._gold = torch.zeros(len(inputs), dtype=torch.bool)
        output = super()._generate_and_score_completions(inputs)
        negatives = None
        if self.credit.needs_negative:
            negatives = [negative_prompt(example, self.credit) for example in inputs]
            output |= self._negative_inputs(negatives)
        if self.needs & REFERENCE_FIELDS:
            output["reference_features"] = self._reference_features(output)
        step = self.state.global_step + 1
        watched = self.watch is not None and self.model.training and self.watch.wants(step)
        multiplies = not (self.credit.uniform or self.renews)
        if not (watched or multiplies):
            return output
        shown = {"logprobs", "entropy"} | ({"negative_logprobs"} if negatives else set())
        fields = self._fields(output, self.needs | shown if watched else self.needs)
        credit = self._assign(output, fields)
        advantages = token_advantages(output["advantages"], credit)
        if watched:
            self._show(step, output, negatives, fields, credit, advantages)
        return output | {"advantages": advantages} if multiplies else output

    def _generate(self, prompts: list[Any]) -> Any:
        generated = super()._generate(prompts)
        if self.credit.gold is None or not self.model.training:
            return generated
        return self._go_gold(prompts, generated)

    def _calculate_rewards(self, *args: Any) -> Tensor:
        judged = super()._calculate_rewards(*args) if self._judged is None else self._judged
        self._judged, self._rewards = None, judged
        return judged

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if self.renews:
            credit = self._assign(inputs, self._fields(inputs, self.needs))
            inputs = inputs | {"advantages": token_advantages(inputs["advantages"], credit)}
        return super()._compute_loss(model, inputs)

    # Credit

    def _negative_inputs(self, negatives: list[Any]) -> dict[str, Tensor]:
        """The negative prompts as trl pads the positive ones."""
        tokenized, _, _ = self._tokenize_prompts(negatives)
        rows = [torch.tensor(ids) for ids in tokenized]
        masks = [torch.ones_like(ids) for ids in rows]
        filler, device = self._tokenizer.pad_token_id, self.accelerator.device
        return {
            "negative_prompt_ids": pad(rows, filler, padding_side="left").to(device),
            "negative_prompt_mask": pad(masks, 0, padding_side="left").to(device),
        }

    def _batches(self, inputs: Mapping[str, Any]) -> tuple[TextBatch, TextBatch | None]:
        """The completions under their prompts, and under their negative prompts where there are any."""
        taken = inputs["completion_ids"], inputs["completion_mask"]
        positive = TextBatch(inputs["prompt_ids"], inputs["prompt_mask"], *taken)
        if "negative_prompt_ids" not in inputs:
            return positive, None
        prompts = inputs["negative_prompt_ids"], inputs["negative_prompt_mask"]
        return positive, TextBatch(*prompts, *taken)

    def _fields(self, inputs: Mapping[str, Any], names: frozenset[str]) -> dict[str, Tensor]:
        """{name: (B, T)} under the policy as it is now: one pass without gradient for each prompt."""
        positive, negative = self._batches(inputs)
        with self.accelerator.autocast():
            return score(
                self.model,
                names,
                positive,
                negative,
                reference_features=inputs.get("reference_features"),
                reference_head=self.frozen[1] if self.frozen else None,
                rows=self.args.per_device_train_batch_size,
            )

    @torch.no_grad()
    def _reference_features(self, inputs: Mapping[str, Any]) -> Tensor:
        """(B, T, D): the reference runs once per rollout, whatever the number of updates."""
        positive, _ = self._batches(inputs)
        rows = self.args.per_device_train_batch_size
        with self.accelerator.autocast():
            if self.frozen:
                return features(self.frozen[0], positive, rows=rows)
            adapted = self.accelerator.unwrap_model(self.model)
            trained_before = "ref" if "ref" in adapted.peft_config else None
            with use_adapter(adapted, adapter_name=trained_before), evaluating(self.model):
                return self.model(score=lambda backbone, _: features(backbone, positive, rows=rows))

    def _assign(self, inputs: Mapping[str, Any], fields: Mapping[str, Tensor]) -> Tensor:
        """(B, T) credit, which is also measured."""
        mask = inputs["completion_mask"].bool()
        needed = {name: fields[name] for name in self.needs}
        assign, params = self.credit.entry.assign, self.credit.section.params
        credit: Tensor = assign(needed, mask, inputs["advantages"], **params)
        if not self.credit.uniform:
            self._log(credit_metrics(credit, mask))
            if {"logprobs", "negative_logprobs"} <= set(fields):
                contrast = (fields["logprobs"] - fields["negative_logprobs"]) * mask
                sums = torch.stack([contrast.sum(), mask.sum()])[None]  # over tokens: rows differ
                total, tokens = self.accelerator.gather(sums).sum(0).tolist()
                self._log({"signed_contrast": total / max(1.0, tokens)})
        return credit

    def _log(self, metrics: Mapping[str, float]) -> None:
        """Adds means over the processes to trl's metrics."""
        mode = "train" if self.model.training else "eval"
        values = torch.tensor(list(metrics.values()), device=self.accelerator.device)
        means = self.accelerator.gather(values[None]).mean(0)
        for name, value in zip(metrics, means.tolist(), strict=True):
            self._metrics[mode][name].append(value)

    # Gold

    def _go_gold(self, prompts: list[Any], generated: Any) -> Any:
        """Puts a reference answer in the place of the last sample of each group that failed (2510.07790)."""
        assert self.credit.gold is not None
        prompt_ids, completion_ids, tool_mask, completions, logprobs, *rest = generated
        rewards = super()._calculate_rewards(self._examples, prompts, completions, completion_ids)
        weights = self.reward_weights.to(rewards.device)
        total = (rewards * weights).nansum(1)
        total[rewards.isnan().all(1)] = torch.inf  # what nobody could judge has not failed
        failed = failed_groups(total, self.num_generations, self.credit.fail_below)
        first = self.accelerator.process_index * len(prompts)
        for row in (failed.nonzero().flatten() + 1) * self.num_generations - 1:
            place = int(row) - first  # groups may reach over the border of two processes
            if not 0 <= place < len(prompts):
                continue
            tokens = gold_tokens(
                self._examples[place], self.credit.gold, self._tokenizer, self.max_completion_length
            )
            if tokens is None:
                continue
            text = self._tokenizer.decode(tokens, skip_special_tokens=True)
            spoken = isinstance(completions[place], list)
            completions[place] = [{"role": "assistant", "content": text}] if spoken else text
            completion_ids[place] = tokens
            if logprobs is not None:
                logprobs[place] = [None] * len(tokens)  # nobody sampled it: trl takes a ratio of 1
            self._gold[place] = True
        everywhere = self.accelerator.gather(self._gold.to(rewards.device))
        sampled = total[total.isfinite()]
        self._judged = rewards.clone()
        self._judged[everywhere] = self.credit.gold_reward / weights.sum()
        placed, failures = int(everywhere.sum()), int(failed.sum())
        self._log(
            {
                "gold": float(placed),
                "gold_missing": float(failures - placed),
                "reward_sampled": float(sampled.mean()) if len(sampled) else 0.0,
            }
        )
        return prompt_ids, completion_ids, tool_mask, completions, logprobs, *rest

    # Looking on

    def _show(
        self,
        step: int,
        output: Mapping[str, Any],
        negatives: list[Any] | None,
        fields: Mapping[str, Tensor],
        credit: Tensor,
        advantages: Tensor,
    ) -> None:
        first = self.accelerator.process_index * len(self._examples)
        rewards = self._rewards[first : first + len(self._examples)]
        assert self.watch is not None
        self.watch(
            TextRollout(
                step=step,
                prompts=[example["prompt"] for example in self._examples],
                negatives=negatives,
                tokens=output["completion_ids"],
                mask=output["completion_mask"].bool(),
                rewards=(rewards * self.reward_weights.to(rewards.device)).nansum(1),
                reward_parts=dict(zip(self.reward_func_names, rewards.T, strict=True)),
                advantages=output["advantages"],
                credit=credit,
                token_advantages=advantages,
                fields=fields,
                gold=self._gold,
            )
        )
