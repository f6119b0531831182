"""Sampling of completions: what comes out, and that padding and seeds do what they should."""

import pytest
import torch
from tiny_text import TAUGHT, taught_model

from t2i_credit.models.text_model import build_text_model, build_tokenizer
from t2i_credit.text.sampling import complete, continued


@pytest.fixture(scope="module")
def pupil():
    return taught_model()


def test_completions_are_texts_without_padding_and_end(pupil):
    model, tokenizer = pupil
    prompts = ["9+9:", "17+25*3:", "9+9:"]
    assert complete(model, tokenizer, prompts, max_new_tokens=40, temperature=0, seed=0) == [
        TAUGHT[p] for p in prompts
    ]


def test_a_batch_of_unequal_prompts_is_completed_as_each_alone(pupil):
    model, tokenizer = pupil
    for batch in (1, 2):
        found = complete(
            model, tokenizer, list(TAUGHT), max_new_tokens=40, temperature=0, seed=0, batch=batch
        )
        assert found == list(TAUGHT.values())


def test_sampling_depends_on_the_seed_and_leaves_torch_as_it_was():
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    model = build_text_model(tokenizer, hidden_size=16, layers=1, heads=2).eval()
    before = torch.get_rng_state()
    first, again, other = (
        complete(model, tokenizer, ["1+2:"] * 2, max_new_tokens=20, seed=s) for s in (1, 1, 2)
    )
    assert first == again != other
    assert first[0] != first[1]
    assert torch.equal(before, torch.get_rng_state())


def test_rows_go_on_from_where_they_stand_until_their_end_or_the_limit(pupil):
    model, tokenizer = pupil
    begun = [tokenizer("17+25*3: 25*3=")["input_ids"], tokenizer("9+9: 9+")["input_ids"]]
    found = continued(model, tokenizer, begun, max_new_tokens=40, temperature=0, seed=0)
    assert tokenizer.batch_decode(found) == ["75, 17+75=92 #92<eos>", "9=8 so #8<eos>"]
    cut = continued(model, tokenizer, begun, max_new_tokens=2, temperature=0, seed=0)
    assert tokenizer.batch_decode(cut) == ["75", "9="]


def test_progress_is_told_after_each_batch(pupil):
    model, tokenizer = pupil
    told = []
    rows = [tokenizer("9+9:")["input_ids"]] * 5
    continued(
        model, tokenizer, rows, max_new_tokens=1, seed=0, batch=2, done=lambda *n: told.append(n)
    )
    assert told == [(2, 5), (4, 5), (5, 5)]
