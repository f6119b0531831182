"""The character tokenizer and the small Llama, as anyone's transformers would load them."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from t2i_credit.errors import ModelError
from t2i_credit.measure.evaluation.text import score
from t2i_credit.models.text_model import (
    BOS,
    CHARACTERS,
    EOS,
    build_text_model,
    build_tokenizer,
    load_text_model,
    text_model_folder,
)
from t2i_credit.worlds.arithmetic.problems import dataset
from t2i_credit.worlds.arithmetic.questions import negative


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model with random weights in the real layout, in half precision."""
    place = tmp_path_factory.mktemp("text") / "model"
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = build_text_model(tokenizer, hidden_size=16, layers=1, heads=2)
    tokenizer.save_pretrained(place)
    model.half().save_pretrained(place)
    return place


def test_a_saved_tokenizer_splits_into_characters_and_joins_them_again(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == 4 + len(CHARACTERS)
    for row in dataset(50, 0):
        for text in (row["prompt"], negative(row["prompt"]), row["gold"]):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer.convert_ids_to_tokens(ids) == list(text)
            assert tokenizer.decode(ids) == text


def test_a_plain_prompt_begins_with_bos_and_a_batch_is_padded_on_the_left(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = tokenizer(["1+2:", "10+2:"], padding=True)
    first = tokenizer.convert_ids_to_tokens(found["input_ids"][0])
    assert first == ["<pad>", BOS, "1", "+", "2", ":"]
    assert found["attention_mask"] == [[0, 1, 1, 1, 1, 1], [1] * 6]


def test_a_conversation_is_the_text_of_its_turns(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = [{"role": "user", "content": "17+25*3:"}]
    plain = tokenizer("17+25*3:")["input_ids"]
    templated = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)
    assert templated["input_ids"] == plain
    answered = [*asked, {"role": "assistant", "content": " 25*3=75, 17+75=92 #92"}]
    text = tokenizer.apply_chat_template(answered, tokenize=False)
    assert text == f"{BOS}17+25*3: 25*3=75, 17+75=92 #92{EOS}"
    bare = [dict(turn, content=turn["content"].strip(": ")) for turn in answered]
    assert tokenizer.apply_chat_template(bare, tokenize=False) == text


def test_an_unknown_character_is_one_unknown_token(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("1 Ü\n2", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["1", " ", "<unk>", "<unk>", "2"]


def test_a_saved_model_loads_in_float32_and_knows_its_end(folder):
    model, tokenizer = load_text_model(folder)
    assert model.dtype == torch.float32
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    # weights were rounded to half precision once, when they were written
    half = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)
    for a, b in zip(model.parameters(), half.parameters(), strict=True):
        assert torch.equal(a, b.float())


def test_the_default_model_has_at_most_three_million_parameters():
    model = build_text_model(build_tokenizer())
    assert 300_000 < sum(parameter.numel() for parameter in model.parameters()) <= 3_000_000


def test_a_missing_or_damaged_folder_is_refused_in_one_line(folder, tmp_path):
    with pytest.raises(ModelError, match="no folder with a config"):
        text_model_folder(tmp_path / "nowhere")
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="the model cannot be read") as error:
        load_text_model(broken)
    assert "\n" not in str(error.value)


@pytest.mark.weights("models/embedded/arithmetic")
def test_the_shipped_model_is_small_and_answers_as_its_card_says():
    place = text_model_folder("arithmetic")
    assert sum(path.stat().st_size for path in place.rglob("*")) < 8_000_000
    card = json.loads((place / "scores.json").read_text(encoding="utf-8"))
    model, tokenizer = load_text_model("arithmetic")
    prompts = [row["prompt"] for row in dataset(60, seed=5)]
    found = score(model, tokenizer, prompts, samples=4)["by_steps"]["overall"]["correct"][0]
    # standard deviation over problems at most sqrt(0.25 / 60) = 0.065
    assert abs(found - card["train"]["by_steps"]["overall"]["correct"][0]) < 0.2
    wrongly = score(model, tokenizer, [negative(p) for p in prompts], samples=1)
    assert wrongly["by_steps"]["overall"]["correct"][0] < found - 0.2
