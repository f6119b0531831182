"""Credit truth of a text model by name: which names are text models, and what is written or refused."""

import json

import pytest
from tiny_text import taught_model
from transformers import LlamaConfig, LlamaForCausalLM

from t2i_credit.errors import ConfigError, ModelError
from t2i_credit.measure.truth.command import truth_of_text_model
from t2i_credit.models.text_model import build_tokenizer
from t2i_credit.text.models import is_text_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("text") / "model"
    model, _ = taught_model()
    model.save_pretrained(place)
    build_tokenizer().save_pretrained(place)
    return place


def test_a_causal_language_model_is_a_text_model_and_nothing_else_is(folder, tmp_path):
    assert is_text_model("arithmetic") and is_text_model(str(folder))
    others = ('{"architectures": ["JanusForConditionalGeneration"]}', "[]", "{", "{}")
    for text in (*others, '{"architectures": null}'):
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        assert not is_text_model(str(tmp_path))
    assert not is_text_model("shapes") and not is_text_model("runs/try@100")


def test_every_credit_that_a_text_has_the_fields_for_is_measured(folder, tmp_path):
    found = truth_of_text_model(str(folder), out=tmp_path / "truth", problems=1, group_size=2)
    names = set(found["causality"]["assigners"])
    assert {"uniform", "random", "entropy", "guidance_contrast", "top_entropy"} <= names
    assert not any("visual" in name or name in ("critical_tokens", "similarity") for name in names)
    saved = json.loads((tmp_path / "truth" / "truth.json").read_text(encoding="utf-8"))
    assert saved["model"] == str(folder) and set(saved["causality"]["assigners"]) == names


def test_bad_input_is_refused_in_one_line_and_nothing_is_written(folder, tmp_path):
    words = tmp_path / "words"
    config = LlamaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    LlamaForCausalLM(config).save_pretrained(words)
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = None
    tokenizer.save_pretrained(words)
    for model, error, match, given in (
        (folder, ConfigError, "--like: for images alone", {"unused": ["--like"]}),
        (folder, ConfigError, "--credit nothing", {"credits": ["nothing"]}),
        (words, ModelError, "its tokens are no characters", {}),
        (tmp_path / "nowhere", ModelError, "no folder", {}),
    ):
        with pytest.raises(error, match=match) as caught:
            truth_of_text_model(str(model), out=tmp_path / "truth", **given)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "truth").exists()
