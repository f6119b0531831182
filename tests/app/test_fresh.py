"""The playground's credit: computed by the real code in fresh samples of the real embedded generator, with its judge's rewards,
or refused in one line; and what can be downloaded of it."""

from __future__ import annotations

import base64
import csv
import io
import re
import threading

import numpy as np
import pytest
import torch
from app_toys import floats, with_checkpoint
from PIL import Image
from toys import WideConfig, tiny_model

from t2i_credit.app import checkpoints, credit_maps, fresh, playground, studio
from t2i_credit.app.recipes import credits
from t2i_credit.app.runs import RunShelf
from t2i_credit.rewards import REWARDS
from t2i_credit.rollout.images import from_uint8
from t2i_credit.worlds.shapes.grammar import GRAMMAR

PROMPT = "a photo of a red circle"
SETTINGS = {"cfg_scale": 2.0, "temperature": 1.0, "seed": 0, "count": 6}


def sampled(here, *takes, **settings):
    """The last thing that is said of a sample."""
    asked = [studio.Take(*take) for take in takes] or [studio.Take("shapes", PROMPT, None, "t")]
    how = studio.Settings(**{**SETTINGS, **settings})
    *_, last = here.sample(asked, how, threading.Event())
    return last


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A studio with the embedded generator in it."""
    found = studio.Studio(RunShelf(tmp_path_factory.mktemp("runs")))
    found.warm_up().join()
    return found


@pytest.mark.parametrize("method", list(credits()))
def test_every_credit_is_that_of_the_samples_and_moves_them_by_their_rewards(here, method):
    last = sampled(here, credit=method)
    assert last.over and not last.failed, last.says
    (step,) = last.steps
    credit, pushed = step.arrays["credit"], step.arrays["token_advantages"]
    assert credit.shape == (6, 36) and np.abs(credit.mean(1) - 1).max() < 1e-4
    even = bool(np.abs(credit - 1).max() < 1e-4)
    assert even == (method in ("dapo", "dgpo"))  # uniform; and a model that is its own reference
    assert ("has not left" in step.says) == (method == "dgpo")
    images = from_uint8([np.asarray(step.image(place)) for place in range(6)])
    judged = REWARDS["geneval"]()(images, [GRAMMAR.known(PROMPT)] * 6)
    assert [sample["reward"] for sample in step.samples] == judged.tolist()
    assert 0 < judged.mean() < 1  # of this seed, so that something is pushed
    advantages = np.array([sample["advantage"] for sample in step.samples], np.float32)
    assert advantages == pytest.approx(((judged - judged.mean()) / (judged.std() + 1e-4)).numpy())
    if method.startswith("eg_grpo"):  # whose advantages are not scaled to the sample's mean
        shares = np.abs(pushed) / np.abs(pushed).mean(1, keepdims=True)
        assert shares == pytest.approx(credit, rel=1e-4) and ((pushed == 0).mean(1) > 0.1).all()
    else:
        assert pushed == pytest.approx(advantages[:, None] * credit)
    (group,) = last.value["groups"]
    assert last.value["map"] == "token_advantages" and group["scale"]["advantage"] > 0
    assert np.array_equal(floats(group["samples"][3]["arrays"]["credit"]), credit[3])


def test_where_the_judge_looked_is_a_map_of_its_own(here):
    (step,) = sampled(here, credit="reward_map").steps
    looked = step.arrays["reward_map"]
    rewards = np.array([sample["reward"] for sample in step.samples])
    assert looked.shape == (6, 36) and (looked[rewards == 1] >= 0).all()
    assert (looked[rewards == 1] > 0).any() and (looked[rewards == 0] < 0).any()


def test_two_takes_stand_on_one_scale_and_differ_where_their_negatives_do(here):
    takes = [("shapes", PROMPT, None, "a"), ("shapes", PROMPT, "a red square", "b")]
    last = sampled(here, *takes)
    first, second = last.value["groups"]
    assert first["scale"] == second["scale"]
    assert [group["title"] for group in (first, second)] == ["a", "b"]
    assert [group["number"] for group in (first, second)] == [0, 1]
    assert not np.array_equal(last.steps[0].arrays["credit"], last.steps[1].arrays["credit"])


def test_without_a_record_the_credit_is_shown_and_nothing_is_called_a_reward(here):
    last = sampled(here, ("shapes", "a very red thing", None, "t"), credit="visual_figure")
    assert not last.failed and last.value["map"] == "credit"
    (group,) = last.value["groups"]
    assert "no reward" in group["says"] and group["scale"]["advantage"] == 0
    assert "reward" not in group["samples"][0] and "advantage" not in group["samples"][0]
    examples = re.findall("“(.+?)”", group["says"])
    assert len(examples) == 3 and all(fresh.known_prompt(one, None)[1] for one in examples)


@pytest.mark.parametrize(
    ("prompt", "settings", "said"),
    [
        ("a very red thing", {"credit": "stage"}, "stage: compares images that fared otherwise"),
        ("a very red thing", {"credit": "reward_map"}, "reward_map: reads where the judge looked"),
        (PROMPT, {"credit": "stage", "count": 1}, "stage: compares the images of a prompt"),
        (PROMPT, {"credit": "critical", "count": 1}, "critical: compares the images"),
        (PROMPT, {"credit": "os:abort"}, "credit: 'os:abort' is none of"),
        (PROMPT, {"credit": ["gcpo"]}, "is none of"),
        (PROMPT, {"credit": None}, "is none of"),
    ],
)
def test_a_credit_that_cannot_be_computed_says_why_in_one_line(here, prompt, settings, said):
    last = sampled(here, ("shapes", prompt, None, "t"), **settings)
    assert last.failed and said in last.says and "\n" not in last.says and not last.steps


def test_one_image_is_sampled_without_a_group(here):
    last = sampled(here, count=1)
    assert not last.failed and last.value["map"] == "credit"
    assert "nothing is pushed" in last.value["groups"][0]["says"]


def test_a_run_is_compared_with_the_model_that_it_began_with(tmp_path):
    with_checkpoint(tmp_path / "one")
    with_checkpoint(tmp_path / "two", start=str(tmp_path / "one"))
    with_checkpoint(tmp_path / "hub", start="somebody/model")
    here = studio.Studio(RunShelf(tmp_path))
    base, left = tiny_model(WideConfig), tiny_model(WideConfig)
    with torch.no_grad():
        for weights in left.parameters():
            weights.mul_(1.5)
    here._models.update({"shapes": base, "one@9": left})
    assert here.reference("one@9") is base and here.reference("two@9") is left
    last = sampled(here, ("one@9", "a red circle", None, "t"), credit="dgpo", count=2)
    assert not last.failed, last.says
    credit = last.steps[0].arrays["credit"]
    assert np.abs(credit - 1).max() > 1e-3 and "has not left" not in last.steps[0].says
    here._models["hub@9"] = left
    last = sampled(here, ("hub@9", "a red circle", None, "t"), credit="dgpo", count=2)
    assert last.failed and "somebody/model" in last.says
    assert not sampled(here, ("hub@9", "a red circle", None, "t"), count=2).failed


def test_the_newest_checkpoint_of_the_chosen_run_is_taken_at_first(tmp_path):
    with_checkpoint(tmp_path / "one", step=4)
    (tmp_path / "one" / "checkpoints" / "000009").mkdir()
    with_checkpoint(tmp_path / "code", start="os:abort")
    shelf = RunShelf(tmp_path)
    for run in ("../one", "gone", None, "code"):
        assert checkpoints.newest(shelf, run) == "shapes"
    assert checkpoints.newest(shelf, "one") in ("one@4", "one@9")


def test_what_was_sampled_can_be_downloaded(here):
    steps = sampled(here, count=2).steps
    table = playground.save(steps, {"kind": "csv", "group": 0})
    text = base64.b64decode(table["data"]).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 2 * 36 and rows[0]["prompt"] == PROMPT
    assert np.float32(rows[40]["credit"]) == steps[0].arrays["credit"][1, 4]
    assert table["name"] == f"playground-{credit_maps.slug(PROMPT)}-seed0.csv"
    panel = playground.save(steps, {"kind": "png", "group": 0, "place": 1})
    assert panel["name"].endswith("-seed0-sample1.png")
    with Image.open(io.BytesIO(base64.b64decode(panel["data"]))) as picture:
        assert picture.width > 600


def test_the_table_of_two_negative_prompts_holds_both(here):
    takes = [("shapes", PROMPT, text, f"against {text}") for text in ("", None)]
    steps = sampled(here, *takes, count=2).steps
    table = playground.save(steps, {"kind": "csv", "group": 1})
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(table["data"]).decode())))
    assert len(rows) == 2 * 2 * 36
    which = dict.fromkeys((row["group"], row["negative"], row["negative_kind"]) for row in rows)
    assert list(which) == [("against ", "", "text"), ("against None", "", "null prompt")]
    apart = [float(row["logprobs"]) - float(row["negative_logprobs"]) for row in rows]
    assert np.allclose(apart, [float(row["signed_contrast"]) for row in rows], atol=1e-5)


@pytest.mark.parametrize(
    "asked",
    [{}, {"group": 9}, {"group": -1}, {"group": "0"}, {"group": 0, "kind": "exe"}]
    + [{"group": 0, "kind": "png", "place": place} for place in (7, "../x", None, [0])],
)
def test_a_download_of_nothing_is_one_line(here, asked):
    steps = sampled(here, count=2).steps
    assert set(playground.save(steps, asked)) == {"error", "sent"}
    assert set(playground.save((), {"group": 0, "kind": "csv"})) == {"error", "sent"}
