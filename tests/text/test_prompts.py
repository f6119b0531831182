"""Data sets that the text trainer takes, and those it refuses: before training where they can be read, else row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="needs the pip extra text")

from datasets import Dataset, DatasetDict, IterableDataset
from scripted_texts import CONTRAST, GCPO, GOLD, SEQUENCE, Album, history, refusal
from tiny_texts import (
    llama_tokenizer,
    questions,
    qwen_tokenizer,
    right,
    settings,
    shade,
    write_checkpoint,
)
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.clip import CLIPImageProcessor
from transformers.models.llava import LlavaProcessor

from t2i_credit.errors import UserError
from t2i_credit.text.prompts import check_datasets, with_suffix
from t2i_credit.text.settings import TextCreditConfig
from t2i_credit.text.trainer import CreditGRPOTrainer

# trl 1.16 reads names that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*deprecated and will be removed in v6:FutureWarning"
)
COLUMN = TextCreditConfig(CONTRAST, negative_column="wrong")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("qwen"))


def stream(*rows: dict[str, Any]) -> IterableDataset:
    """A data set that does not say its columns."""

    def drawn() -> Iterator[dict[str, Any]]:
        yield from rows

    found = IterableDataset.from_generator(drawn)
    assert found.column_names is None
    return found


def told_in_training(*args: Any, **more: Any) -> str:
    trainer = CreditGRPOTrainer(*args, **more)
    with pytest.raises(UserError) as caught:
        trainer.train()
    assert "\n" not in str(caught.value) and trainer.state.global_step == 0
    return str(caught.value)


# ---- negative prompts ----


def test_negatives_come_from_a_suffix_a_column_or_a_function(qwen: Path, tmp_path: Path) -> None:
    wrong = ["2+3 wrongly", "4-10", "7*6 not", "1-1"]
    asked = questions(spoken=False, wrong=wrong)
    credits = {
        "suffix": TextCreditConfig(CONTRAST, negative="wrongly"),
        "column": TextCreditConfig(CONTRAST, negative_column="wrong"),
        "function": TextCreditConfig(CONTRAST, negative=lambda row: row["prompt"].upper() + "?"),
    }
    for kind, credit in credits.items():
        trainer = CreditGRPOTrainer(
            str(qwen),
            shade,
            settings(tmp_path, max_steps=1),
            asked,
            credit=credit,
            watch=(album := Album()),
        )
        trainer.train()
        for prompt, negative in zip(album[0].prompts, album[0].negatives or (), strict=True):
            column = wrong[asked["prompt"].index(prompt)]
            wanted = {"suffix": f"{prompt} wrongly", "column": column}
            assert negative == wanted.get(kind, prompt.upper() + "?")


def test_a_suffix_stands_behind_the_last_message() -> None:
    talk = [{"role": "system", "content": "Count."}, {"role": "user", "content": "1+1"}]
    assert with_suffix(talk, "No.") == [talk[0], {"role": "user", "content": "1+1 No."}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "1+1"}]}]
    assert with_suffix(parts, "No.")[0]["content"][1] == {"type": "text", "text": " No."}
    assert talk[1]["content"] == "1+1" and len(parts[0]["content"]) == 1  # theirs is untouched


# ---- columns ----


@pytest.mark.parametrize("credit", [TextCreditConfig(), GCPO])
def test_a_data_set_without_prompts_is_refused(
    qwen: Path, tmp_path: Path, credit: TextCreditConfig
) -> None:
    asked = questions().rename_column("prompt", "promt")
    message = refusal(str(qwen), shade, settings(tmp_path), asked, credit=credit)
    assert message.startswith(
        "prompt: train_dataset has no column 'prompt'; did you mean promt? (columns: promt, answer)"
    )
    rows = [{"promt": "1+1"}, {"promt": "2+2"}]
    message = told_in_training(str(qwen), shade, settings(tmp_path), stream(*rows), credit=credit)
    assert message == "prompt: a row has no column 'prompt' (columns: promt)"


def test_every_data_set_of_an_evaluation_needs_the_negative_column(
    qwen: Path, tmp_path: Path
) -> None:
    good = questions(spoken=False, wrong=[*"abcd"])
    parts = {"first": good, "second": questions(spoken=False)}
    for kind in (dict, DatasetDict):
        message = refusal(str(qwen), shade, settings(tmp_path), good, kind(parts), credit=COLUMN)
        assert message.startswith("negative_column: eval_dataset second has no column 'wrong'")
    equal = {"first": questions(spoken=False, wrong=["2+3", *"abc"])}
    message = refusal(str(qwen), shade, settings(tmp_path), good, equal, credit=COLUMN)
    assert message.startswith("column wrong: the negative prompt '2+3' is equal to the positive")


def test_a_streamed_row_without_its_column_is_refused_when_it_comes(
    qwen: Path, tmp_path: Path
) -> None:
    rows = stream({"prompt": "1+1"}, {"prompt": "2+2"})
    message = told_in_training(str(qwen), shade, settings(tmp_path), rows, credit=COLUMN)
    assert message == "negative_column: a row has no column 'wrong' (columns: prompt)"

    def nothing(completions: Any, **_: Any) -> list[float]:
        return [0.0] * len(completions)

    args = settings(tmp_path, **SEQUENCE)
    message = told_in_training(str(qwen), nothing, args, rows, credit=GOLD)
    assert message == "gold: a row has no column 'answer' (columns: prompt)"


def test_evaluation_needs_no_reference_answers(qwen: Path, tmp_path: Path) -> None:
    bare = Dataset.from_list([{"prompt": "1+1"}, {"prompt": "2+2"}])
    args = settings(tmp_path, **SEQUENCE, per_device_eval_batch_size=8)
    train = questions(spoken=False)
    trainer = CreditGRPOTrainer(str(qwen), shade, args, train, bare, credit=GOLD)
    assert trainer.evaluate()["eval_reward"] > 0


def test_a_suffix_needs_no_look_at_the_rows(tmp_path: Path) -> None:
    reads: list[int] = []

    def seen(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        reads.append(len(rows["prompt"]))
        return rows

    data = questions()
    data.set_transform(seen)
    check_datasets(data, None, GCPO, settings(tmp_path))
    assert not reads
    with pytest.raises(UserError, match=r"^negative: 'no' is no negative prompt"):
        check_datasets(
            data, None, TextCreditConfig(CONTRAST, negative=lambda row: "no"), settings(tmp_path)
        )
    assert reads


def test_wrong_data_are_refused_in_one_line(qwen: Path, tmp_path: Path) -> None:
    args = settings(tmp_path)
    column = TextCreditConfig(CONTRAST, negative_column="wrnog")
    message = refusal(str(qwen), shade, args, questions(wrong=["a"] * 4), credit=column)
    assert message.startswith(
        "negative_column: train_dataset has no column 'wrnog'; did you mean wrong?"
    )
    named = TextCreditConfig(CONTRAST, negative_column="wrong")
    asked = questions(spoken=False, wrong=["2+3", *"abc"])
    message = refusal(str(qwen), shade, args, asked, credit=named)
    assert message.startswith("column wrong: the negative prompt '2+3' is equal to the positive")
    message = refusal(str(qwen), shade, args, questions(wrong=["a"] * 4), credit=named)
    assert message == (
        "column wrong: 'a' is no negative prompt: must be a list of messages, as the prompt is"
    )
    args.remove_unused_columns = True
    message = refusal(str(qwen), shade, args, asked, credit=named)
    assert message.startswith("remove_unused_columns: true is refused")


def test_a_streamed_row_is_checked_when_it_comes(qwen: Path, tmp_path: Path) -> None:
    stream = questions(spoken=False, wrong=["2+3", *"abc"]).to_iterable_dataset()
    assert isinstance(stream, IterableDataset)
    credit = TextCreditConfig(CONTRAST, negative_column="wrong")
    trainer = CreditGRPOTrainer(str(qwen), shade, settings(tmp_path), stream, credit=credit)
    with pytest.raises(UserError, match=r"^column wrong: the negative prompt '2\+3' is equal"):
        trainer.train()


# ---- how many ----


@pytest.mark.parametrize("credit", [TextCreditConfig(), GCPO])
def test_fewer_prompts_than_a_step_takes_are_refused(
    qwen: Path, tmp_path: Path, credit: TextCreditConfig
) -> None:
    one = questions().select([0])
    message = refusal(str(qwen), shade, settings(tmp_path), one, credit=credit)
    assert message == (
        "train_dataset: 1 prompts are too few: a step takes 2 (generation_batch_size / num_generations)"
    )


# ---- tokens ----


@pytest.mark.parametrize("empty", [("2+3", "1+1"), ("2+3", "what is 10-4", "7*6 please", "1+1")])
def test_a_negative_prompt_without_tokens_is_refused(
    qwen: Path, tmp_path: Path, empty: tuple[str, ...]
) -> None:
    def negative(row: Any) -> str:  # the tokenizer of Qwen sets nothing before a text
        return "" if row["prompt"] in empty else "no"

    credit = TextCreditConfig(CONTRAST, negative=negative)
    args = settings(tmp_path, per_device_train_batch_size=16)
    message = told_in_training(str(qwen), shade, args, questions(spoken=False), credit=credit)
    assert message.startswith("negative: the negative prompt '' has no tokens, and an answer needs")


def test_negative_prompts_are_compared_as_the_model_sees_them(qwen: Path, tmp_path: Path) -> None:
    words = qwen_tokenizer()
    words.padding_side = "left"
    words.chat_template = words.chat_template.replace("m['content']", "m['content'] | trim")

    def longer(row: Any) -> Any:
        return [{"role": "user", "content": row["prompt"][0]["content"] + "  "}]

    credit = TextCreditConfig(CONTRAST, negative=longer)
    message = told_in_training(
        str(qwen), shade, settings(tmp_path), questions(), credit=credit, processing_class=words
    )
    assert message.endswith("has the tokens of the positive: they show no contrast")


# ---- chat templates ----


def test_every_data_set_of_messages_needs_a_chat_template(qwen: Path, tmp_path: Path) -> None:
    words = qwen_tokenizer()
    words.padding_side, words.chat_template = "left", None
    wanted = "processing_class: the tokenizer has no chat template, and prompts are messages"
    args = settings(tmp_path, per_device_eval_batch_size=8)
    given = {"processing_class": words}
    told: Callable[..., str]
    for told, train, evaluation in (
        (refusal, questions(), None),
        (refusal, questions(spoken=False), questions()),
        (refusal, questions(spoken=False), {"one": questions(spoken=False), "two": questions()}),
        (told_in_training, questions().to_iterable_dataset(), None),
    ):
        message = told(str(qwen), shade, args, train, evaluation, **given)
        assert message.startswith(wanted)


def test_the_chat_template_may_be_that_of_a_processor(tmp_path: Path) -> None:
    words = llama_tokenizer()
    words.add_special_tokens({"additional_special_tokens": ["<image>"]})
    words.pad_token, words.padding_side = words.eos_token, "left"
    template, words.chat_template = words.chat_template, None
    processor = LlavaProcessor(
        CLIPImageProcessor(),
        words,
        patch_size=14,
        chat_template=template.replace("m['content']", "m['content'][0]['text']"),
    )
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    text = LlamaConfig(vocab_size=len(words), num_attention_heads=2, **sizes)
    sight = CLIPVisionConfig(image_size=28, patch_size=14, num_attention_heads=2, **sizes)
    image = words.convert_tokens_to_ids("<image>")
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=sight, text_config=text, image_token_id=image)
    )
    model.generation_config.eos_token_id = words.eos_token_id
    trainer = CreditGRPOTrainer(
        model, right, settings(tmp_path, max_steps=1), questions(), processing_class=processor
    )
    assert len(history(trainer)) == 1
    given = {"processing_class": processor, "credit": GCPO}
    message = refusal(model, right, settings(tmp_path), questions(), **given)
    assert message == "processing_class: images in prompts are refused with token credit or gold"
