"""The texts that a prompt brings along: its negative prompt and its reference answer. Runs no model.

A prompt is what trl takes: a text, or a list of messages whose last one is the user's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from datasets import Dataset
from trl.data_utils import is_conversational

from ..config_messages import did_you_mean, show
from ..errors import ConfigError, PromptError
from .trl_config import TextCreditConfig

Example = Mapping[str, Any]


def negative_prompt(example: Example, config: TextCreditConfig) -> Any:
    """The negative prompt of an example, of the same form as its prompt.

    Raises:
        PromptError: it equals the prompt, or has another form.
    """
    prompt = example["prompt"]
    if isinstance(config.negative, str):
        return with_suffix(prompt, config.negative)
    if config.negative is not None:
        where, found = "negative", config.negative(example)
    else:
        assert config.negative_column is not None
        where, found = f"column {config.negative_column}", example[config.negative_column]
    if type(found) is not type(prompt):
        kind = "a list of messages" if isinstance(prompt, list) else "a text"
        raise PromptError(
            f"{where}: {show(found)} is no negative prompt: must be {kind}, as the prompt is"
        )
    if found == prompt:
        raise PromptError(
            f"{where}: the negative prompt {show(found)} is equal to the positive: they show no contrast"
        )
    return found


def with_suffix(prompt: Any, suffix: str) -> Any:
    """The prompt with one space and the suffix behind it; of messages, behind the last one."""
    if isinstance(prompt, str):
        return f"{prompt} {suffix}"
    messages = copy.deepcopy(prompt)
    content = messages[-1]["content"]
    if isinstance(content, str):
        messages[-1]["content"] = f"{content} {suffix}"
    else:
        messages[-1]["content"] = [*content, {"type": "text", "text": f" {suffix}"}]
    return messages


def gold_tokens(example: Example, column: str, tokenizer: Any, limit: int) -> list[int] | None:
    """The reference answer as a completion would be: its tokens and the end token; None where there is none.

    Args:
        example: holds the answer at `column`: a text, a list of one assistant message, or None.
        tokenizer: of the model.
        limit: the most tokens of a completion.

    Raises:
        PromptError: it is no answer, or longer than a completion may be.
    """
    answer = example[column]
    if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], Mapping):
        answer = answer[0].get("content")
    if answer is None:
        return None
    if not isinstance(answer, str) or not answer:
        raise PromptError(
            f"column {column}: {show(answer)} is no reference answer: must be a text, one assistant "
            "message, or null"
        )
    tokens = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    if len(tokens) > limit:
        raise PromptError(
            f"column {column}: the reference answer {show(answer)} has {len(tokens)} tokens with the end "
            f"token, max_completion_length allows {limit}: raise it, or leave the answer out (null)"
        )
    return tokens


def check_dataset(dataset: Any, config: TextCreditConfig, where: str = "train_dataset") -> None:
    """Refuses a data set without the columns that the credit reads, and negatives that equal their prompts.

    Rows of a streamed data set are checked when they come.

    Raises:
        ConfigError: a column is missing.
        PromptError: a negative prompt is none.
    """
    known = getattr(dataset, "column_names", None)
    for key in ("negative_column", "gold"):
        column = getattr(config, key)
        if column is not None and known is not None and column not in known:
            hint, listed = did_you_mean(column, known), ", ".join(known)
            raise ConfigError(
                f"{key}: {where} has no column {show(column)}{hint} (columns: {listed})"
            )
    if config.needs_negative:
        for example in _rows(dataset):
            negative_prompt(example, config)


def check_gold(dataset: Any, config: TextCreditConfig, tokenizer: Any, limit: int) -> None:
    """Refuses reference answers that no completion could be.

    Raises:
        PromptError: one line about the first such answer.
    """
    if config.gold is not None:
        for example in _rows(dataset):
            gold_tokens(example, config.gold, tokenizer, limit)


def check_chat_template(dataset: Any, tokenizer: Any, where: str = "train_dataset") -> None:
    """Refuses messages for a tokenizer that cannot write them out.

    Raises:
        ConfigError: one line.
    """
    first = next(iter(_rows(dataset)), None)
    conversational = first is not None and is_conversational({"prompt": first.get("prompt")})
    if conversational and not tokenizer.chat_template:
        raise ConfigError(
            f"processing_class: the tokenizer has no chat template, and the prompts of {where} are messages; "
            "set tokenizer.chat_template, or give prompts as texts"
        )


def _rows(dataset: Any) -> Iterable[Example]:
    """The rows that can be read without using up a stream."""
    return dataset if isinstance(dataset, Dataset) else ()
