"""Pretraining of the embedded text model: what it learns from, that a stop changes nothing, and what is written."""

import json
from itertools import pairwise

import pytest
import torch

from t2i_credit.errors import ModelError
from t2i_credit.measure.cards.generator import make_world
from t2i_credit.measure.cards.text import card_text
from t2i_credit.measure.intervals import with_interval
from t2i_credit.models.text_model import build_text_model, build_tokenizer, load_text_model
from t2i_credit.text.sampling import complete
from t2i_credit.worlds.arithmetic.chains import judge
from t2i_credit.worlds.arithmetic.questions import WRONGLY, read
from t2i_credit.worlds.pretrain.text import (
    BLOCK,
    IGNORED,
    ArithmeticPlan,
    batches,
    pretrain_arithmetic,
    to_tensors,
)

PLAN = ArithmeticPlan(steps=60, batch=4, lr=1e-2, checkpoint_every=8)
TOKENIZER = build_tokenizer()


class Killed(Exception):
    pass


def quiet(stage, done, of, values):
    pass


def train(folder, kill_at=None):
    """Trains a tiny model in `folder`; `kill_at` raises at that step's progress."""
    torch.manual_seed(0)
    model = build_text_model(TOKENIZER, hidden_size=16, layers=1, heads=2)
    losses = []

    def progress(stage, done, of, values):
        losses.append(values["loss"])
        if done == kill_at:
            raise Killed

    pretrain_arithmetic(model, TOKENIZER, folder, PLAN, progress)
    return model, losses


def test_a_killed_pretraining_ends_with_the_weights_of_an_undisturbed_one(tmp_path):
    whole, losses = train(tmp_path / "whole")
    assert losses[-1] < 3.4  # nothing learned: ln 48 = 3.87
    with pytest.raises(Killed):
        train(tmp_path / "cut", kill_at=50)  # its checkpoint is that of step 48, inside a block
    again, _ = train(tmp_path / "cut")
    for (name, a), b in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_examples_are_held_in_and_only_those_that_ask_for_it_are_wrong_in_the_first_part():
    plan = ArithmeticPlan(steps=2 * BLOCK, batch=32, curated_share=0.5)
    curated, noisy = ([e for batch in batches(plan, block) for e in batch] for block in (0, 1))
    assert len(curated) == len(noisy) == BLOCK * plan.batch
    for prompt, completion in [*curated, *noisy]:
        assert read(prompt).split == "train"
        allowed = {"slip", "slips"} if prompt.endswith(f"{WRONGLY}:") else {"right", "slip"}
        assert judge(prompt, completion).kind in allowed
    wrongly = [prompt.endswith(f"{WRONGLY}:") for prompt, _ in curated]
    # 512 draws of 0.25: standard deviation 0.019
    assert abs(sum(wrongly) / len(wrongly) - plan.wrongly_share) < 0.07
    for (prompt, completion), asked in zip(curated, wrongly, strict=True):
        assert judge(prompt, completion).correct != asked
    kept = [judge(p, c).correct for p, c in noisy if not p.endswith(f"{WRONGLY}:")]
    assert 0.28 < sum(kept) / len(kept) < 0.5  # mean over questions 0.39; standard deviation 0.025


def test_batches_come_again_from_the_same_plan_and_hold_examples_of_about_one_length():
    plan = ArithmeticPlan(steps=BLOCK, batch=8)
    first = batches(plan, 0)
    assert first == batches(plan, 0) != batches(plan, 1)
    lengths = [[len(p) + len(c) for p, c in batch] for batch in first]
    ranges = sorted((min(batch), max(batch)) for batch in lengths)
    assert all(a[1] <= b[0] for a, b in pairwise(ranges))
    assert [min(batch) for batch in lengths] != sorted(min(batch) for batch in lengths)


def test_only_the_completion_and_its_end_are_learned():
    found = to_tensors(TOKENIZER, [("1+2:", " 1+2=3 #3"), ("10+2:", " 10+2=12 #12")])
    ids, mask, labels = (found[name] for name in ("input_ids", "attention_mask", "labels"))
    assert ids.shape == mask.shape == labels.shape == (2, 1 + 5 + 12 + 1)  # BOS and end
    learned = labels[0][labels[0] != IGNORED]
    assert TOKENIZER.decode(learned) == " 1+2=3 #3<eos>"
    assert (labels[0, :5] == IGNORED).all() and (labels[0, 15:] == IGNORED).all()
    assert mask[0].tolist() == [1] * 15 + [0] * 4
    assert TOKENIZER.decode(ids[0, :15]) == "<bos>1+2: 1+2=3 #3<eos>"


def test_the_command_writes_a_model_with_card_and_figures(tmp_path):
    out = tmp_path / "arithmetic"
    stages = []

    def progress(stage, done, of, values):
        stages.append(stage)

    (written,) = make_world("arithmetic", out, scale=0.0005, seed=0, progress=progress)
    assert written == out
    model, tokenizer = load_text_model(out)
    assert len(complete(model, tokenizer, ["17+25*3:"], max_new_tokens=5, seed=0)[0]) <= 5
    assert {"train", "heldout", "wrongly", "temperature 0", "temperature 1"} <= set(stages)
    scores = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    assert scores["train"]["samples"] == 8 and scores["train"]["problems"] == 4
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "t2i-credit pretrain arithmetic --seed 0" in card and "2 steps of 64" in card
    for name, row in scores["heldout"]["by_steps"].items():
        assert f"| {name} |" in card and with_interval(*row["correct"]) in card
    assert card == card_text(
        scores, card.split("## How it was made\n\n")[1].split("\n\n## ")[0], model
    )
    size = sum(path.stat().st_size for path in out.rglob("*"))
    assert size < 8_000_000
    with pytest.raises(ModelError, match="exists; name another"):
        make_world("arithmetic", out, progress=quiet)


def test_the_arithmetic_world_has_no_rewards_to_make(tmp_path):
    for given in ({"only": "rewards"}, {"rewards_out": tmp_path / "rewards"}):
        with pytest.raises(ModelError, match="has a text model alone") as error:
            make_world("arithmetic", tmp_path / "new", progress=quiet, **given)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
