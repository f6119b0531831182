"""The texts that a prompt brings along: its negative prompt and its reference answer. Runs no model.

A prompt is what trl takes: a text, or a list of messages whose last one is the user's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from datasets import Dataset
from torch import Tensor
from trl.data_utils import is_conversational

from ..config.messages import did_you_mean, show
from ..errors import ConfigError, PromptError
from .settings import TextCreditConfig

Example = Mapping[str, Any]


def negative_prompt(example: Example, config: TextCreditConfig) -> Any:
    """The negative prompt of an example, of the same form as its prompt.

    Raises:
        PromptError: it is missing, equals the prompt, or has another form.
    """
    prompt = _at(example, "prompt", "prompt")
    if isinstance(config.negative, str):
        return with_suffix(prompt, config.negative)
    if config.negative is not None:
        where, found = "negative", config.negative(example)
    else:
        assert config.negative_column is not None
        where = f"column {config.negative_column}"
        found = _at(example, config.negative_column, "negative_column")
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
        PromptError: its column is missing, it is no answer, or longer than a completion may be.
    """
    answer = _at(example, column, "gold")
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


def check_datasets(
    train: Any, evaluation: Any, config: TextCreditConfig, args: Any, *, prompts: bool = True
) -> None:
    """Refuses data sets without what the credit reads, negatives that equal their prompts, and too few rows for a step.

    Rows of a streamed data set are checked when they come.

    Args:
        train, evaluation: data sets; the latter may be a dictionary of them, and either None.
        config: the credit.
        args: trl's GRPOConfig.
        prompts: whether the prompts are theirs.

    Raises:
        ConfigError: a column is missing, or no step could be trained.
        PromptError: a negative prompt is none.
    """
    columns = {"negative_column": config.negative_column, "prompt": "prompt" if prompts else None}
    for where, part in _parts(train, evaluation):
        gold = config.gold if part is train else None  # evaluation knows none
        _check_columns(part, columns | {"gold": gold}, where)
    # trl drops what does not fill a step
    asked = args.generation_batch_size // args.num_generations
    if isinstance(train, Dataset) and len(train) < asked:
        raise ConfigError(
            f"train_dataset: {len(train)} prompts are too few: a step takes {asked} "
            "(generation_batch_size / num_generations)"
        )
    if config.needs_negative and not isinstance(config.negative, str):  # a suffix always differs
        for _, part in _parts(train, evaluation):
            for example in _rows(part):
                negative_prompt(example, config)


def _check_columns(dataset: Any, columns: Mapping[str, str | None], where: str) -> None:
    known = getattr(dataset, "column_names", None)
    for key, column in columns.items():
        if column is not None and known is not None and column not in known:
            hint, listed = did_you_mean(column, known), ", ".join(known)
            raise ConfigError(
                f"{key}: {where} has no column {show(column)}{hint} (columns: {listed})"
            )


def check_gold(dataset: Any, config: TextCreditConfig, tokenizer: Any, limit: int) -> None:
    """Refuses reference answers that no completion could be.

    Raises:
        PromptError: one line about the first such answer.
    """
    if config.gold is not None:
        for example in _rows(dataset):
            gold_tokens(example, config.gold, tokenizer, limit)


def check_prompts(rows: Iterable[Example], processing_class: Any) -> None:
    """Refuses rows without a prompt, and messages for a tokenizer that cannot write them out.

    Raises:
        PromptError: a row has none.
        ConfigError: one line.
    """
    for example in rows:
        spoken = is_conversational({"prompt": _at(example, "prompt", "prompt")})
        if spoken and not processing_class.chat_template:
            raise ConfigError(
                "processing_class: the tokenizer has no chat template, and prompts are messages; set "
                "its chat_template, or give prompts as texts"
            )


def check_tokens(
    negatives: list[Any], negative_ids: list[list[int]], prompt_ids: Tensor, prompt_mask: Tensor
) -> None:
    """Refuses negative prompts that the model cannot tell from the positive ones, or that it does not see.

    Args:
        negatives: B, as written.
        negative_ids: B, tokenized.
        prompt_ids, prompt_mask: (B, L) of the positive ones.

    Raises:
        PromptError: one line.
    """
    for row, (written, found) in enumerate(zip(negatives, negative_ids, strict=True)):
        if not len(found):
            raise PromptError(
                f"negative: the negative prompt {show(written)} has no tokens, and an answer needs one to "
                "stand behind; give it some, such as the tokenizer's end token"
            )
        if found == prompt_ids[row][prompt_mask[row].bool()].tolist():
            raise PromptError(
                f"negative: the negative prompt {show(written)} has the tokens of the positive: they show "
                "no contrast"
            )


def first_rows(train: Any, evaluation: Any) -> Iterator[Example]:
    """The first row of every data set that is no stream; the others of it have the same form."""
    for _, part in _parts(train, evaluation):
        yield from islice(_rows(part), 1)


def _at(example: Example, column: str, key: str) -> Any:
    if column not in example:
        listed = ", ".join(example)
        raise PromptError(f"{key}: a row has no column {show(column)} (columns: {listed})")
    return example[column]


def _parts(train: Any, evaluation: Any) -> Iterator[tuple[str, Any]]:
    """What to call each data set, and the data set."""
    yield "train_dataset", train
    if isinstance(evaluation, Mapping):
        yield from ((f"eval_dataset {name}", part) for name, part in evaluation.items())
    elif evaluation is not None:
        yield "eval_dataset", evaluation


def _rows(dataset: Any) -> Iterable[Example]:
    """The rows that can be read without using up a stream."""
    return dataset if isinstance(dataset, Dataset) else ()
