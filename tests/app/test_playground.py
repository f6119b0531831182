"""The playground without a browser: its form, sampling that can be watched and cancelled, and refusals."""

from __future__ import annotations

import threading

import pytest
from app_toys import floats

from t2i_credit.app import studio
from t2i_credit.app.playground import MODES, asked
from t2i_credit.errors import UserError


def test_the_form_says_what_to_sample():
    form = ["shapes", "a ring", "", MODES[1], "a square", "one@9", 2.0, 1.0, 7, 3]
    takes, settings = asked(*form)
    assert [take.negative for take in takes] == [None, "a square"]
    assert settings == studio.Settings(2.0, 1.0, 7, 3)
    takes, _ = asked(*form[:3], MODES[2], *form[4:])
    assert [take.model for take in takes] == ["shapes", "one@9"]


@pytest.mark.parametrize("number", [None, "", float("inf"), "two"])
def test_a_form_without_its_numbers_is_said(number):
    with pytest.raises(UserError, match="must be numbers"):
        asked("shapes", "a ring", "", MODES[0], "", "shapes", 2.0, 1.0, 7, number)


@pytest.mark.parametrize("seed", [1.5, None, -1, float("inf"), float("nan"), "", "7"])
def test_a_seed_that_is_none_is_refused_and_not_rounded(seed):
    with pytest.raises(UserError, match=r"seed: .*an integer from 0 on"):
        asked("shapes", "a ring", "", MODES[0], "", "shapes", 2.0, 1.0, seed, 2)
    assert asked("shapes", "a ring", "", MODES[0], "", "shapes", 2.0, 1.0, 7.0, 2)[1].seed == 7


@pytest.mark.parametrize(
    ("take", "settings", "said"),
    [
        (("shapes", " ", None, ""), (2.0, 1.0, 0, 1), "write a prompt"),
        (("shapes", "a" * 3000, None, ""), (2.0, 1.0, 0, 1), "3000 letters"),
        (("shapes", "a ring", None, ""), (2.0, 1.0, 0, 999), "images: 999"),
        (("shapes", "a ring", None, ""), (2.0, 1.0, -1, 1), "seed"),
        (("../secret@9", "a ring", None, ""), (2.0, 1.0, 0, 1), "not the name of a run"),
        (("one@7", "a ring", None, ""), (2.0, 1.0, 0, 1), "no checkpoint of step '7'"),
    ],
)
def test_what_cannot_be_sampled_is_said_before_a_model_is_loaded(shelf, take, settings, said):
    *_, last = studio.Studio(shelf).sample(
        [studio.Take(*take)], studio.Settings(*settings), threading.Event()
    )
    assert last.failed and said in last.says


def test_opening_the_playground_loads_the_embedded_generator_once(shelf):
    here = studio.Studio(shelf)
    for thread in [here.warm_up(), here.warm_up()]:
        thread.join(timeout=120)
    (name, loaded), *others = here._models.items()
    assert (name, others) == ("shapes", []) and here.model("shapes") is loaded


def test_sampling_shows_the_picture_forming_and_ends_with_both_prompts_on_one_scale(shelf):
    from toys import WideConfig, tiny_model

    here = studio.Studio(shelf)
    here._models["shapes"] = tiny_model(WideConfig)
    takes = [studio.Take("shapes", "a red circle", text, "t") for text in (None, "a blue square")]
    told = list(here.sample(takes, studio.Settings(2.0, 1.0, 3, 2), threading.Event()))
    shares = [progress.share for progress in told]
    assert shares == sorted(shares) and told[-1].over and not told[-1].failed
    growing = [p.value["groups"][0]["samples"][0]["known"] for p in told[:-1] if p.value]
    assert 0.5 in growing  # of two rows of tokens, the first is known
    first, second = told[-1].value["groups"]
    assert first["scale"] == second["scale"] and len(first["samples"]) == 2
    assert floats(first["samples"][0]["arrays"]["logprobs"]).shape == (6,)


def test_cancelling_stops_in_the_middle_of_an_image(shelf):
    from toys import tiny_model

    here, model, stop = studio.Studio(shelf), tiny_model(), threading.Event()
    advance = model.advance

    def first_token(state, tokens):
        stop.set()
        return advance(state, tokens)

    model.advance = first_token
    here._models["shapes"] = model
    take = studio.Take("shapes", "a red circle", None, "t")
    *told, last = here.sample([take], studio.Settings(2.0, 1.0, 0, 1), stop)
    assert last.says == "Cancelled." and not last.failed
    assert "loading" in told[0].says


def test_who_cancels_while_waiting_has_no_model_loaded(shelf):
    here, stop = studio.Studio(shelf), threading.Event()
    stop.set()
    take = studio.Take("shapes", "a red circle", None, "t")
    told = list(here.sample([take], studio.Settings(2.0, 1.0, 0, 1), stop))
    assert [progress.says for progress in told] == ["Cancelled."] and not here._models


def test_a_prompt_longer_than_the_model_takes_is_said(shelf):
    from toys import tiny_model

    here = studio.Studio(shelf)
    here._models["shapes"] = tiny_model()
    take = studio.Take("shapes", "red " * 400, None, "t")
    *_, last = here.sample([take], studio.Settings(2.0, 1.0, 0, 1), threading.Event())
    assert last.failed and "the model takes at most" in last.says
