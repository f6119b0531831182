"""Pretraining of the embedded generator: what it optimises, and that a stop changes nothing."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from t2i_credit.errors import ModelError, RunError
from t2i_credit.measure.cards.generator import make_world
from t2i_credit.models.embedded_model import EmbeddedConfig, EmbeddedModel, build_text_tokenizer
from t2i_credit.prompts.records import TASKS
from t2i_credit.worlds.pretrain.generator import (
    PretrainPlan,
    _shown_caption,
    build_corpus,
    fresh_scenes,
    pretrain,
    resumable,
    rng_for,
)
from t2i_credit.worlds.shapes import grammar
from t2i_credit.worlds.world import find_world

WORLD = find_world("shapes")
PLAN = PretrainPlan(
    tokenizer_steps=90,
    tokenizer_batch=4,
    corpus_scenes=500,
    transformer_steps=8,
    transformer_batch=8,
    checkpoint_every=2,
)
CONFIG = EmbeddedConfig(vq_channels=(8, 16), codebook_size=32, hidden_size=16, layers=1, heads=2)


def small_model():
    torch.manual_seed(0)
    return EmbeddedModel(CONFIG, build_text_tokenizer(WORLD.grammar.words()))


class Killed(Exception):
    pass


def train(work, kill_at=None):
    """Trains into `work`; `kill_at` = (stage, step) raises right after that step's progress or checkpoint."""
    model, seen = small_model(), []

    def progress(stage, done, of, values):
        seen.append((stage, done, values))
        if kill_at == (stage, done):
            raise Killed

    pretrain(model, WORLD, work, PLAN, progress)
    return model, seen


def test_a_killed_pretraining_ends_with_the_weights_of_an_undisturbed_one(tmp_path):
    whole, _ = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "cut", kill_at=("tokenizer", 50))
    with pytest.raises(Killed):
        train(tmp_path / "cut", kill_at=("corpus", 500))
    again, _ = train(tmp_path / "cut")
    for (name, a), b in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_the_image_tokenizer_learns_and_keeps_its_codes_at_unit_length(tmp_path):
    untrained = small_model()
    model, _ = train(tmp_path)
    norms = model.codebook.norm(dim=1)
    assert torch.allclose(norms, torch.ones_like(norms), atol=1e-5)
    images = fresh_scenes(WORLD, 8, rng_for(5))
    before = (untrained.decode(untrained.encode(images)) - images).abs().mean()
    after = (model.decode(model.encode(images)) - images).abs().mean()
    assert after < 0.8 * before


def test_the_corpus_tells_noisy_captions_from_what_is_shown(tmp_path):
    corpus = build_corpus(small_model(), WORLD, tmp_path / "corpus", PLAN, lambda *_: None)
    tags = {r["prompt"]: task for task in TASKS for r in grammar.records(task)}
    assert len(corpus.truths) == len(corpus.captions) == len(corpus.tokens) == PLAN.corpus_scenes
    for truth in corpus.truths:
        assert not any(f"{color} {shape}" in truth for color, shape in grammar.HELD_OUT_PAIRS), (
            truth
        )
    wrong = [c != t for c, t in zip(corpus.captions, corpus.truths, strict=True)]
    assert 0.2 < np.mean(wrong) < 0.5  # a third of 500: standard deviation 0.021
    # tasks are drawn by their weights: color_attr 3 of 9.5, standard deviation 0.021
    assert abs(np.mean([tags[c] == "color_attr" for c in corpus.captions]) - 3 / 9.5) < 0.1


def test_captions_are_dropped_as_often_as_the_plan_says():
    rng = np.random.default_rng(0)
    text = "a photo of a red circle"
    shown = [_shown_caption(text, PLAN, rng) for _ in range(20_000)]
    # shares 0.10, 0.02, 0.10 of 20,000: standard deviations below 0.0022, so 0.01 is 4.5 of them
    for found, share in ((None, 0.10), ("", 0.02), ("a red circle", 0.10)):
        assert abs(shown.count(found) / len(shown) - share) < 0.01, found


def test_an_unknown_world_and_an_existing_folder_are_refused_in_one_line(tmp_path):
    for world, out, words in (
        ("cubes", tmp_path / "new", "known: shapes"),
        ("shapes", tmp_path, "exists"),
    ):
        with pytest.raises(ModelError, match=words) as error:
            make_world(world, out, rewards_out=out, progress=lambda stage, done, of, values: None)
        assert "\n" not in str(error.value)


def test_a_work_folder_of_another_training_is_refused_and_left_as_it_is(tmp_path):
    def train(steps, width=2):
        module = torch.nn.Linear(width, 1)
        optimizer = torch.optim.AdamW(module.parameters())
        plan = SimpleNamespace(checkpoint_every=2)
        return list(resumable(module, optimizer, tmp_path, steps, plan))

    assert train(4) == [0, 1, 2, 3]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    with pytest.raises(RunError, match="000004: of a training of more than 3 steps"):
        train(3)
    with pytest.raises(RunError, match=r"000004: does not fit: .*; name another --work"):
        train(4, width=3)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
    assert train(4) == []
