"""Pretraining of the embedded rewards: true captions, what the loss forgives, resuming, and what is written."""

import json
import math

import numpy as np
import pytest
import torch

from t2i_credit.errors import ModelError
from t2i_credit.measure.cards import generator
from t2i_credit.measure.cards.generator import make_world
from t2i_credit.measure.cards.rewards import card_text, measure, neighbour_pairs, retrieval_round
from t2i_credit.prompts.records import TASKS
from t2i_credit.rewards.aesthetic import AestheticHead
from t2i_credit.worlds.pretrain.generator import rng_for
from t2i_credit.worlds.pretrain.rewards import (
    CLIP_CONFIG,
    PAD,
    RewardsPlan,
    build_clip,
    build_tokenizer,
    contrastive_loss,
    pretrain_rewards,
    to_ids,
    train_clip,
)
from t2i_credit.worlds.shapes.examples import (
    FLAWS,
    SPOILS,
    describes,
    examples,
    rated_scenes,
    rating,
    true_captions,
)
from t2i_credit.worlds.shapes.grammar import draw, is_held_out, records, sample_record
from t2i_credit.worlds.shapes.mistakes import neighbour
from t2i_credit.worlds.shapes.scene import Object, Scene

PLAN = RewardsPlan(
    clip_steps=3, clip_batch=6, head_scenes=12, head_steps=60, head_batch=8, checkpoint_every=2
)


class Killed(Exception):
    pass


def quiet(stage, done, of, values):
    """Reports nothing."""


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder that a very short pretraining writes."""
    root = tmp_path_factory.mktemp("rewards")
    pretrain_rewards(root / "out", root / "work", PLAN, quiet, AestheticHead)
    return root / "out"


def test_a_killed_pretraining_writes_what_an_undisturbed_one_writes(made, tmp_path):
    def killer(stage, done, of, values):
        if (stage, done) == ("head", 50):
            raise Killed

    with pytest.raises(Killed):
        pretrain_rewards(tmp_path / "out", tmp_path / "work", PLAN, killer, AestheticHead)
    assert not (tmp_path / "out").exists()
    pretrain_rewards(tmp_path / "out", tmp_path / "work", PLAN, quiet, AestheticHead)
    assert files(tmp_path / "out") == files(made)


def test_the_folder_is_in_the_libraries_own_formats_and_small(made):
    assert {p.as_posix() for p in files(made)} == {
        "aesthetic_head.safetensors",
        "clip/open_clip_config.json",
        "clip/open_clip_model.safetensors",
        "clip/tokenizer.json",
        "clip/tokenizer_config.json",
    }
    assert sum(map(len, files(made).values())) < 3e6
    config = json.loads((made / "clip" / "open_clip_config.json").read_text())
    assert config["model_cfg"]["text_cfg"]["vocab_size"] == len(build_tokenizer())


def test_the_figures_come_from_the_rewards_and_stand_on_the_card(made):
    scores = measure(made, quiet, rounds=1, scenes=24)
    assert 0 <= scores["retrieval"] <= 1 and 0 <= scores["one_word"] <= 1
    assert -1 <= scores["spearman"] <= 1
    assert set(scores["spearman_by_kind"]) == set(SPOILS)
    card = card_text(scores | {"spearman": -0.876}, "By hand.")
    assert "-0.876" in card and "By hand." in card and "negative" in card


# ---- captions


def scene(*objects):
    return Scene(tuple(Object(shape, color, x, y, 7) for shape, color, x, y in objects))


def record_of(text):
    splits = ("train", "heldout")
    every = (r for s in splits for task in TASKS for r in records(task, s))
    return next(r for r in every if r["prompt"] == text)


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("a photo of a ring and a square", True),
        ("a photo of a square and a ring", True),
        ("a photo of a red ring and a blue square", True),
        ("a photo of a blue ring and a red square", False),
        ("a photo of a ring left of a square", True),
        ("a photo of a square left of a ring", False),
        ("a photo of a ring above a square", False),
        ("a photo of a ring", False),  # true, but it leaves the square out
        ("a photo of a ring and a cross", False),
    ],
)
def test_a_caption_describes_a_scene_if_it_is_true_and_names_all_of_it(text, true):
    shown = scene(("ring", "red", 12, 24), ("square", "blue", 36, 24))
    assert describes(record_of(text), shown) == true


def test_every_drawn_caption_is_true_of_its_own_scene():
    batch = examples(40, 0.5, rng_for(5))
    assert true_captions(batch).diagonal().all()
    flawed = [e for e in batch if e.flaw]
    assert 8 <= len(flawed) <= 32
    assert all(e.caption.endswith(f", {FLAWS[e.flaw]}") for e in flawed)


def test_neighbours_differ_in_one_word_and_are_held_in():
    rng, seen = np.random.default_rng(0), set()
    for _ in range(300):
        record = sample_record(rng)
        other = neighbour(record, rng)
        if other is None:
            continue
        a, b = record["prompt"].split(), other["prompt"].split()
        changed = [(x, y) for x, y in zip(a, b, strict=False) if x != y]
        changed = [pair for pair in changed if set(pair) != {"a", "an"}]
        if record["tag"] == "counting":  # "one ring", "two rings": the number and the plural
            assert len(changed) <= 2
        elif {"of"} != set(a) & set(b) & {"of", "above", "below"}:
            assert len(a) != len(b) or len(changed) <= 2  # "left of" is two words
        assert not is_held_out(other)
        assert describes(other, draw(other, rng))
        seen.add(record["tag"])
    assert seen == set(TASKS)


def test_the_tokenizer_knows_every_word_and_ends_where_open_clip_looks():
    tokenizer = build_tokenizer()
    texts = [r["prompt"] for task in TASKS for r in records(task)]
    texts = [f"{text}, {word}" for text, word in zip(texts, [*FLAWS.values()] * 9999, strict=False)]
    ids = to_ids(tokenizer, texts)
    assert ids.shape == (len(texts), CLIP_CONFIG["text_cfg"]["context_length"])
    assert not (ids == tokenizer.unk_token_id).any()
    # nothing is cut off, so the end comes before the padding, and it has the largest id
    assert (ids.max(1).values == tokenizer.eos_token_id).all()
    assert (ids[:, -1] == tokenizer.convert_tokens_to_ids(PAD)).all()
    assert len(tokenizer) == tokenizer.eos_token_id + 1


# ---- losses and ratings


def test_equal_captions_in_a_batch_are_no_wrong_answers():
    logits = torch.zeros(2, 2)
    own = torch.eye(2, dtype=torch.bool)
    assert contrastive_loss(logits, own).item() == pytest.approx(math.log(2))
    assert contrastive_loss(logits, torch.ones(2, 2, dtype=torch.bool)).item() == 0.0


def test_the_loss_is_the_mean_of_both_directions():
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    own = torch.eye(2, dtype=torch.bool)
    # images: log(1 + e^-2) and log(1 + e^-2); captions: log(1 + e^-1) and log(1 + e^-3)
    a, b, c = (math.log1p(math.exp(-x)) for x in (2, 1, 3))
    assert contrastive_loss(logits, own).item() == pytest.approx((a + (b + c) / 2) / 2)


def test_a_short_training_lowers_the_loss(tmp_path):
    model, tokenizer = build_clip(seed=0)
    plan = RewardsPlan(clip_steps=50, clip_batch=8, clip_lr=2e-3, checkpoint_every=50)
    seen = []
    train_clip(model, tokenizer, tmp_path, plan, lambda stage, done, of, v: seen.append(v["loss"]))
    assert len(seen) == 1
    assert seen[0] < 0.95 * math.log(8)  # what an untrained model scores
    assert not any(p.requires_grad for p in model.parameters())


def test_ratings_fall_from_ten_to_one_with_the_strength():
    assert rating(np.array([0.0, 0.5, 1.0])).tolist() == [10.0, 5.5, 1.0]
    images, strengths, kinds = rated_scenes(60, 0.5, rng_for(1))
    assert {image.shape for image in images} == {(48, 48, 3)}
    assert [k == "" for k in kinds] == (strengths == 0).tolist()
    assert 15 <= kinds.count("") <= 45


# ---- measuring


def test_a_retrieval_round_has_one_right_answer_for_each_caption():
    shown = retrieval_round(rng_for(3))
    assert len(shown) == 32
    assert np.array_equal(true_captions(shown), np.eye(32, dtype=bool))


def test_pairs_differ_so_that_the_caption_fits_one_of_them():
    for own, other in neighbour_pairs(12, rng_for(4)):
        assert describes(own.record, own.scene)
        assert not describes(own.record, other.scene)


def test_existing_folders_are_left_alone_and_a_wrong_part_is_refused(tmp_path):
    with pytest.raises(ModelError, match="exists"):
        make_world("shapes", tmp_path, only="generator", progress=quiet)
    with pytest.raises(ModelError, match="exists"):
        make_world("shapes", tmp_path / "new", rewards_out=tmp_path, only="rewards", progress=quiet)
    with pytest.raises(ModelError, match="--scale: 0"):
        make_world("shapes", tmp_path / "new", scale=0, progress=quiet)
    with pytest.raises(
        ModelError, match=r"--only: .critic. is not allowed; allowed: generator, rewards"
    ):
        make_world("shapes", tmp_path / "new", only="critic", progress=quiet)
    assert list(tmp_path.iterdir()) == []


def test_one_command_makes_what_is_missing_of_generator_and_rewards(tmp_path, monkeypatch):
    made = []

    def stub(part):
        def write(folder, work, *, scale, seed, progress, **world):
            made.append((part, folder.name, work.name))
            folder.mkdir(parents=True)

        return write

    monkeypatch.setattr(generator, "make_generator", stub("generator"))
    monkeypatch.setattr(generator, "make_rewards", stub("rewards"))
    out = tmp_path / "world"
    found = make_world("shapes", out, progress=quiet)
    assert found == [out, tmp_path / "world-rewards"]
    assert made == [
        ("generator", "world", "world.work"),
        ("rewards", "world-rewards", "rewards"),
    ]
    out.rmdir()
    assert make_world("shapes", out, progress=quiet) == [out]  # the rewards are there already
