"""Scores of a language model on arithmetic: what is sampled, and how it is counted."""

from dataclasses import asdict

import pytest
from tiny_text import TAUGHT, taught_model

from t2i_credit.measure.evaluation.text import kind_shares, score
from t2i_credit.models.text_model import CONTEXT
from t2i_credit.text.sampling import LONGEST
from t2i_credit.worlds.arithmetic.chains import CLOSERS, LINKS, OPENERS, judge, parse
from t2i_credit.worlds.arithmetic.questions import negative


@pytest.fixture(scope="module")
def pupil():
    return taught_model()


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
    found = kind_shares([asdict(judge("1+2:", text)) for text in texts])
    assert found == dict.fromkeys(("right", "slip", "slips", "lost", "malformed"), 0.2)


def test_the_longest_prompt_and_chain_fit():
    opener, link, closer = (max(words, key=len) for words in (OPENERS, LINKS, CLOSERS))
    step = "99+99=99"
    chain = f" {opener}{step}" + 3 * f", {link}{step}" + f"{closer} #99"
    assert parse(chain) is not None
    assert len(chain) == 69 <= LONGEST
    prompt = negative("49 minus 49 minus 49 minus 49 minus 49:")
    assert len(prompt) + LONGEST + 2 <= CONTEXT  # with BOS and end
