"""Token credit for text: trl's GRPO trainer, whose advantages become one number per token. No trainer of its own.

    credit = TextCreditConfig(credit="guidance_contrast", negative=PUBLISHED_NEGATIVE)
    CreditGRPOTrainer(model, reward, args=GRPOConfig(...), train_dataset=dataset, credit=credit).train()

The credit functions are those of the images. Shapes: B completions of this process, G of each prompt, T tokens of the
longest completion, N = B times the number of processes, K reward functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..training.gold import failed_groups
from ..training.metrics import credit_metrics
from .arguments import require_tested_trl
from .prompts import (
    check_datasets,
    check_gold,
    check_prompts,
    check_tokens,
    first_rows,
    gold_tokens,
    negative_prompt,
)
from .record import TextRollout, Watch
from .scoring import (
    TextBatch,
    TextReference,
    add_scoring_pass,
    draws_noise,
    keep_adapter,
    overheard,
    score,
)
from .settings import REFERENCE_FIELDS, TextCreditConfig, check_arguments, check_model

require_tested_trl()

from accelerate.utils import is_peft_model  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402
from trl.trainer.utils import pad  # noqa: E402

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
        asked = others.get("environment_factory") is None  # else it may bring the prompts
        check_datasets(train_dataset, eval_dataset, self.credit, args, prompts=asked)
        compares = bool(self.credit.needs & REFERENCE_FIELDS)
        if compares and args.beta == 0:  # else trl does it
            keep_adapter(model)
        super().__init__(
            model, reward_funcs, args, train_dataset, eval_dataset, processing_class, **others
        )
        if asked:
            check_prompts(first_rows(train_dataset, eval_dataset), self.processing_class)
        check_gold(train_dataset, self.credit, self._tokenizer, self.max_completion_length)
        check_model(self.model, self.credit, images=self._is_vlm)
        self._entry = self.credit.entry
        self.renews = self.credit.renews
        self.needs = self.credit.needs  # and what signed_contrast is made of
        if self.credit.needs_negative:
            self.needs |= {"logprobs", "negative_logprobs"}
        # trl's log-probs of the rollout are what our own pass would give
        self._shares = self.temperature == 1 and not (
            self.renews or self.mask_truncated_completions or draws_noise(self.model)
        )
        self._judged: Tensor | None = None  # (N, K) rewards that are known before trl asks for them
        add_scoring_pass(self.model.get_base_model() if is_peft_model(self.model) else self.model)
        self.reference = None
        if compares:
            held = self.ref_model and self.accelerator.unwrap_model(self.ref_model)
            cast = args.cast_lm_head_to_fp32
            self.reference = TextReference(self.model, held, cast_head=cast)

    # What trl calls

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self.environment_factories is None:
            check_prompts(inputs, self.processing_class)
        self._examples = inputs
        self._gold = torch.zeros(len(inputs), dtype=torch.bool)
        negatives = None
        if self.credit.needs_negative:
            negatives = [negative_prompt(example, self.credit) for example in inputs]
        with overheard(self.reference) as heard:
            output = super()._generate_and_score_completions(inputs)
        places = torch.arange(output["completion_ids"].shape[1], device=self.accelerator.device)
        output["sampled_mask"] = (places < self._lengths[:, None].to(places.device)).long()
        if negatives is not None:
            output |= self._negative_inputs(negatives, output)
        if self.reference:
            positive, _ = self._batches(output)
            rows = self.args.per_device_train_batch_size
            with self.accelerator.autocast():  # once per rollout, whatever the number of updates
                found = self.reference.features(self.model, positive, heard, rows=rows)
            output["reference_features"] = found
        step = self.state.global_step + 1
        watched = self.watch is not None and self.model.training and self.watch.wants(step)
        multiplies = not (self.credit.uniform or self.renews)
        if not (watched or multiplies):
            return output
        shown = {"logprobs", "entropy"}
        fields = self._fields(output, self.needs | shown if watched else self.needs)
        credit = self._assign(output, fields)
        advantages = self._token_advantages(output, fields, credit)
        if watched:
            self._show(step, output, negatives, fields, credit, advantages)
        if not multiplies:
            return output
        self._measure(output, fields, credit)
        return output | {"advantages": advantages}

    def _generate(self, prompts: list[Any]) -> Any:
        generated = super()._generate(prompts)
        if self.credit.gold is not None and self.model.training:
            generated = self._go_gold(prompts, generated)
        self._lengths = torch.tensor([len(taken) for taken in generated[1]])
        return generated

    def _calculate_rewards(self, *args: Any) -> Tensor:
        judged = super()._calculate_rewards(*args) if self._judged is None else self._judged
        self._judged, self._rewards = None, judged
        return judged

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if self.renews:
            fields = self._fields(inputs, self.needs)
            credit = self._assign(inputs, fields)
            self._measure(inputs, fields, credit)
            inputs = inputs | {"advantages": self._token_advantages(inputs, fields, credit)}
        return super()._compute_loss(model, inputs)

    # Credit

    def _negative_inputs(
        self, negatives: list[Any], output: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """The negative prompts as trl pads the positive ones."""
        tokenized, _, _ = self._tokenize_prompts(negatives)
        check_tokens(negatives, tokenized, output["prompt_ids"], output["prompt_mask"])
        rows = [torch.tensor(ids) for ids in tokenized]
        masks = [torch.ones_like(ids) for ids in rows]
        filler, device = self._tokenizer.pad_token_id, self.accelerator.device
        return {
            "negative_prompt_ids": pad(rows, filler, padding_side="left").to(device),
            "negative_prompt_mask": pad(masks, 0, padding_side="left").to(device),
        }

    def _batches(self, inputs: Mapping[str, Any]) -> tuple[TextBatch, TextBatch | None]:
        """The completions under their prompts, and under their negative prompts where there are any."""
        taken = inputs["completion_ids"], inputs["sampled_mask"]
        positive = TextBatch(inputs["prompt_ids"], inputs["prompt_mask"], *taken)
        if "negative_prompt_ids" not in inputs:
            return positive, None
        prompts = inputs["negative_prompt_ids"], inputs["negative_prompt_mask"]
        return positive, TextBatch(*prompts, *taken)

    def _fields(self, inputs: Mapping[str, Any], names: frozenset[str]) -> dict[str, Tensor]:
        """{name: (B, T)} under the policy as it is now: one pass without gradient for each prompt."""
        positive, negative = self._batches(inputs)
        known: dict[str, Tensor] = {}
        if self._shares and "old_per_token_logps" in inputs:
            known["logprobs"] = inputs["old_per_token_logps"].float()
        with self.accelerator.autocast():
            found = score(
                self.model,
                names - known.keys(),
                positive,
                negative,
                reference_features=inputs.get("reference_features"),
                reference_head=self.reference.head if self.reference else None,
                rows=self.args.per_device_train_batch_size,
            )
        return found | known

    def _assign(self, inputs: Mapping[str, Any], fields: Mapping[str, Tensor]) -> Tensor:
        """(B, T) credit."""
        needed = {name: fields[name] for name in self.credit.needs}
        mask = inputs["completion_mask"].bool()
        params = self.credit.section.params
        credit: Tensor = self._entry.assign(needed, mask, inputs["advantages"], **params)
        return credit

    def _token_advantages(
        self, inputs: Mapping[str, Any], fields: Mapping[str, Tensor], credit: Tensor
    ) -> Tensor:
        """(B, T)."""
        mask, params = inputs["completion_mask"].bool(), self.credit.section.params
        return self._entry.token_advantages(fields, credit, mask, inputs["advantages"], params)

    def _measure(
        self, inputs: Mapping[str, Any], fields: Mapping[str, Tensor], credit: Tensor
    ) -> None:
        """Logs credit that is trained with."""
        mask = inputs["completion_mask"].bool()
        self._log(credit_metrics(credit, mask))
        if self.credit.needs_negative:
            contrast = (fields["logprobs"] - fields["negative_logprobs"]) * mask
            sums = torch.stack([contrast.sum(), mask.sum()])[None]  # over tokens: rows differ
            total, tokens = self.accelerator.gather(sums).sum(0).tolist()
            self._log({"signed_contrast": total / max(1.0, tokens)})

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
                sampled=output["sampled_mask"].bool(),
                rewards=(rewards * self.reward_weights.to(rewards.device)).nansum(1),
                reward_parts=dict(zip(self.reward_func_names, rewards.T, strict=True)),
                advantages=output["advantages"],
                credit=credit,
                token_advantages=advantages,
                fields=fields,
                gold=self._gold,
            )
        )
