"""Scores of a language model on arithmetic: what is sampled, and how it is counted."""

import pytest
import torch

from t2i_credit.arithmetic import negative
from t2i_credit.arithmetic.chains import CLOSERS, LINKS, OPENERS, judge, parse
from t2i_credit.arithmetic_scores import LONGEST, complete, kind_shares, score
from t2i_credit.models.text_model import CONTEXT, build_text_model, build_tokenizer
from t2i_credit.pretrain_arithmetic import to_tensors

TAUGHT = {"17+25*3:": " 25*3=75, 17+75=92 #92", "9+9:": " 9+9=8 so #8"}


@pytest.fixture(scope="module")
def pupil():
    """A tiny model that knows two answers by heart, one of them wrong."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    model = build_text_model(tokenizer, hidden_size=32, layers=1, heads=2)
    lesson = to_tensors(tokenizer, list(TAUGHT.items()))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        model(**lesson).loss.backward()
        optimizer.step()
    return model.eval(), tokenizer


def test_completions_are_texts_without_padding_and_end(pupil):
    model, tokenizer = pupil
    prompts = ["9+9:", "17+25*3:", "9+9:"]
    assert complete(model, tokenizer, prompts, temperature=0, seed=0) == [
        TAUGHT[p] for p in prompts
    ]


def test_a_batch_of_unequal_prompts_is_completed_as_each_alone(pupil):
    model, tokenizer = pupil
    for batch in (1, 2):
        found = complete(model, tokenizer, list(TAUGHT), temperature=0, seed=0, batch=batch)
        assert found == list(TAUGHT.values())


def test_sampling_depends_on_the_seed_and_leaves_torch_as_it_was():
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    model = build_text_model(tokenizer, hidden_size=16, layers=1, heads=2).eval()
    before = torch.get_rng_state()
    first, again, other = (complete(model, tokenizer, ["1+2:"] * 2, seed=s) for s in (1, 1, 2))
    assert first == again != other
    assert first[0] != first[1]
    assert torch.equal(before, torch.get_rng_state())


def test_a_score_counts_exact_answers_by_steps_and_kind(pupil):
    model, tokenizer = pupil
    found = score(model, tokenizer, list(TAUGHT), samples=3, temperature=0)
    assert (found["problems"], found["samples"]) == (2, 3)
    assert {name: row["correct"][0] for name, row in found["by_steps"].items()} == {
        "overall": 0.5,
        "1 steps": 0.0,
        "2 steps": 1.0,
    }
    assert found["by_steps"]["2 steps"]["pass_at_k"][0] == 1.0
    assert found["kinds"] == {"right": 0.5, "slip": 0.5, "slips": 0, "lost": 0, "malformed": 0}


def test_kinds_are_shares_of_all_completions():
    texts = (" 1+2=3 #3", " 1+2=4 #4", " 1+2=4 #5", " 2+1=3 #3", "3")
    found = kind_shares([judge("1+2:", text) for text in texts])
    assert found == dict.fromkeys(("right", "slip", "slips", "lost", "malformed"), 0.2)


def test_the_longest_prompt_and_chain_fit():
    opener, link, closer = (max(words, key=len) for words in (OPENERS, LINKS, CLOSERS))
    step = "99+99=99"
    chain = f" {opener}{step}" + 3 * f", {link}{step}" + f"{closer} #99"
    assert parse(chain) is not None
    assert len(chain) == 69 <= LONGEST
    prompt = negative("49 minus 49 minus 49 minus 49 minus 49:")
    assert len(prompt) + LONGEST + 2 <= CONTEXT  # with BOS and end
