"""Golden references: who gets one, what is known of it, its gradient by hand, and a whole run that goes gold."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toys import PROMPTS, recipe, tiny_model
from training_runs import assert_same_run, stop_at

from t2i_credit import api
from t2i_credit.advantages import group_normalized
from t2i_credit.errors import ConfigError, PromptError
from t2i_credit.geneval import judge
from t2i_credit.heatmap.files import sample_view
from t2i_credit.interfaces import Prompt, Rollout
from t2i_credit.losses import policy_loss
from t2i_credit.rollout.images import from_uint8
from t2i_credit.rollout.sampling import sample_rollout
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.training.gold import References, failed_groups, go_gold
from t2i_credit.training.policy import Policy
from t2i_credit.worlds.shapes.detector import detect
from t2i_credit.worlds.shapes.grammar import prompt_set
from t2i_credit.worlds.world import find_world

reference = find_world("shapes").reference

SIZE = 3
GOLD = {"rollout": {"gold": True, "group_size": 4}, "loss": {"ratio": "sequence"}}


def picture(prompt: Prompt, seed: int) -> torch.Tensor | None:
    """An image for every prompt but the first."""
    if prompt == PROMPTS[0]:
        return None
    return torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed % 2**60))


def gone_gold(model: Any, **more: Any) -> tuple[Rollout, Rollout, torch.Tensor]:
    """A rollout, the same gone gold in all groups but the third, and the rows that were replaced."""
    kept = {"full_kl": True, "guided_entropy": True}
    rollout = sample_rollout(
        model, PROMPTS, group_size=SIZE, cfg_scale=2.0, temperature=0.9, seed=3, **kept
    )
    failed = torch.tensor([True, True, False, True])
    policy = Policy(model, None, "guided", cfg_scale=2.0, temperature=0.9)
    changed, rows = go_gold(rollout, failed, 7, policy=policy, reference_image=picture)
    return rollout, changed, rows


def test_a_group_has_failed_if_none_of_its_rewards_is_above_the_limit() -> None:
    rewards = torch.tensor([0.0, 0.0, 0.0, 0.1, 0.2, 0.2, -1.0, 0.0])
    assert failed_groups(rewards, 2, 0.0).tolist() == [True, False, False, True]
    assert failed_groups(rewards, 2, 0.2).tolist() == [True, True, True, True]


def test_the_last_sample_of_a_failed_group_gives_way_to_its_prompts_reference() -> None:
    before, after, rows = gone_gold(tiny_model())
    # the first prompt has no reference, the third group did not fail
    assert rows.tolist() == [1 * SIZE + 2, 3 * SIZE + 2]
    assert after.gold.nonzero().flatten().tolist() == rows.tolist()
    others = [b for b in range(len(before)) if b not in rows.tolist()]
    for name in ("tokens", "images", "logprobs", "negative_logprobs", "guided_logprobs"):
        assert torch.equal(getattr(after, name)[others], getattr(before, name)[others]), name
    model = tiny_model()
    assert torch.equal(after.images[rows], model.decode(after.tokens[rows]))
    assert not torch.equal(after.tokens[rows], before.tokens[rows])
    assert not before.gold.any()


def test_everything_known_of_a_reference_is_of_the_policy_that_sampled_the_others() -> None:
    model = tiny_model()
    _, after, rows = gone_gold(model)
    prompts = [after.prompts[row] for row in rows.tolist()]
    condition = model.condition([p.text for p in prompts], [p.negative for p in prompts])
    # sampling step by step with the reference's tokens forced, as the rollout would have done
    state = model.expand(model.prefill(condition), 1)
    taken, columns = None, []
    for t in range(4):
        positive, negative = model.advance(state, taken)
        assert negative is not None
        guided = (negative + 2.0 * (positive - negative)) / 0.9
        taken = after.tokens[rows, t]
        of = [x.log_softmax(-1) for x in (positive, negative, guided)]
        entropies = [-(x.exp() * x).sum(-1) for x in (of[0], of[2])]
        kl = (of[0].exp() * (of[0] - of[1])).sum(-1)
        columns.append([x.gather(1, taken[:, None])[:, 0] for x in of] + [*entropies, kl])
    names = ("logprobs", "negative_logprobs", "guided_logprobs", "entropy", "guided_entropy")
    for i, name in enumerate((*names, "full_kl")):
        expected = torch.stack([column[i] for column in columns], 1)
        torch.testing.assert_close(getattr(after, name)[rows], expected, rtol=0, atol=1e-4)
    assert torch.equal(after.sampling_logprobs[rows], after.guided_logprobs[rows])


def test_a_rollout_without_a_failed_group_or_without_references_stays_as_it_is() -> None:
    model = tiny_model()
    rollout = sample_rollout(model, PROMPTS[:1], group_size=2, cfg_scale=2.0, seed=0)
    for failed in (torch.tensor([True]), torch.tensor([False])):
        policy = Policy(model, None, "guided", cfg_scale=2.0, temperature=1.0)
        changed, rows = go_gold(rollout, failed, 0, policy=policy, reference_image=picture)
        assert changed is rollout and len(rows) == 0


def test_the_gradient_of_a_golden_sample_is_that_derived_by_hand() -> None:
    # a group of two of two tokens over two codes; both failed, so rewards are 0 and, gone gold, 1:
    # mean 1/2, unbiased std 0.707107, A = -+0.5 / (0.707107 + 0.0001) = -+0.707007
    advantages = group_normalized(torch.tensor([0.0, 1.0]), 2)
    logits = torch.tensor(
        [[[0.0, 0.0], [0.0, 0.0]], [[0.0, math.log(3)], [0.0, 0.0]]], requires_grad=True
    )
    tokens = torch.tensor([[0, 1], [0, 1]])
    logprobs = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    mask = torch.ones(2, 2, dtype=torch.bool)
    loss, _ = policy_loss(
        logprobs,
        logprobs.detach(),
        advantages[:, None].expand(2, 2),
        mask,
        clip_low=0.2,
        clip_high=0.2,
        ratio="sequence",
    )
    loss.backward()
    # at ratio 1: -A / (B T) (1[code taken] - p); p of the golden sample 1/4, 3/4 and 1/2, 1/2:
    # -0.707007 / 4 * (0.75, -0.75) = (-0.132564, 0.132564), then -0.707007 / 4 * (-0.5, 0.5)
    expected = torch.tensor([[-0.132564, 0.132564], [0.088376, -0.088376]])
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[1], expected, rtol=0, atol=1e-6)
    # the failed sample is pushed away by as much: +0.707007 / 4 * (1[code taken] - 1/2)
    expected = torch.tensor([[0.088376, -0.088376], [-0.088376, 0.088376]])
    torch.testing.assert_close(logits.grad[0], expected, rtol=0, atol=1e-6)


# ---- references ----


def test_a_drawn_reference_fulfils_its_prompt_and_held_out_compositions_are_never_drawn() -> None:
    prompts = prompt_set(per_task=3, seed=4)
    images = [reference(prompt, seed) for seed, prompt in enumerate(prompts)]
    found = detect(np.stack([image for image in images if image is not None]))
    assert len(found) == len(prompts) == 18
    for prompt, detections in zip(prompts, found, strict=True):
        assert prompt.spec is not None
        assert judge(detections, dict(prompt.spec)).correct, prompt.text
    first, again, other = (reference(prompts[0], seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    tasks = ("colors", "position", "color_attr")  # the others have no held-out composition
    assert not any(
        reference(p, 0) is not None for p in prompt_set("heldout", tasks, per_task=3, seed=4)
    )
    assert reference(Prompt("no record"), 0) is None


@pytest.mark.weights
def test_the_embedded_tokenizer_encodes_what_it_decodes() -> None:
    model = api.load_model("shapes", device="cpu")
    drawn = [reference(p, 1) for p in prompt_set(per_task=4, seed=5)]
    tokens = model.encode(from_uint8([image for image in drawn if image is not None]))
    again = model.encode(model.decode(tokens))
    # neighbouring codes of nearly equal distance may change places; a tokenizer that normalises on one side only
    # agrees in a few percent
    assert (again == tokens).float().mean() > 0.8


def reference_recipe(folder: Path, **sections: Any) -> dict[str, Any]:
    """A recipe whose reward is always 0 and whose prompts, but the first, have a file of random pixels."""
    config = recipe(folder, **{"reward": {"toys:constant": {}}, **sections})
    lines = []
    for i, prompt in enumerate(PROMPTS):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        line = {"text": prompt.text, "negative": prompt.negative}
        lines.append(json.dumps(line | ({"reference": f"{i}.png"} if i else {})))
    (folder / "prompts.jsonl").write_text("\n".join(lines))
    return config


def test_a_run_goes_gold_where_every_image_fails_counts_it_and_marks_it(tmp_path: Path) -> None:
    config = reference_recipe(tmp_path, **GOLD, train={"steps": 3}, log={"groups": 2, "probes": 1})
    run = RunReader(api.train(config, warn=lambda line: None))
    for line in run.metrics():
        assert line["gold"] + line["gold_missing"] == 2  # both groups of a step fail
        assert line["reward"] == 0.0 and line["grad_norm"] > 0  # metrics are of the samples alone
    assert sum(line["gold_missing"] for line in run.metrics()) > 0
    record = run.step(3)
    groups = [record.samples[i : i + 4] for i in range(0, len(record.samples), 4)]
    assert [s["gold"] for s in groups[2]] == [False] * 4  # probes are samples
    for group in groups[:2]:
        missing = group[0]["prompt"] == PROMPTS[0].text
        assert [s["gold"] for s in group] == [False] * 3 + [not missing]
        assert [s["reward"] for s in group] == [0.0] * 3 + [float(not missing)]
        if not missing:  # rewards 0 0 0 1: mean 1/4, std 1/2: 0.75 / 0.5001
            assert group[3]["advantage"] == pytest.approx(1.4997, abs=1e-4)
            assert group[3]["reward_parts"] == {"toys:constant": 0.0}  # as it is judged
    place = [s["gold"] for s in record.samples].index(True)
    assert sample_view(record, place).gold


def test_a_run_that_goes_gold_resumes_as_the_uninterrupted_one(tmp_path: Path) -> None:
    def config(name: str) -> dict[str, Any]:
        more = {"rollout": {**GOLD["rollout"], "dynamic": True}, "loss": GOLD["loss"]}
        return reference_recipe(
            tmp_path, **more, train={"name": name, "steps": 4, "checkpoint_every": 2}
        )

    whole = RunReader(api.train(config("whole"), warn=lambda line: None))
    with pytest.raises(KeyboardInterrupt):
        api.train(config("broken"), report=stop_at(3), warn=lambda line: None)
    api.train(config("broken"), resume=True, warn=lambda line: None)
    assert_same_run(RunReader(tmp_path / "runs" / "broken"), whole)
    assert any(line["groups_dropped"] for line in whole.metrics())


def refusal(folder: Path, kind: type[Exception]) -> str:
    config = reference_recipe(folder, **GOLD)
    if (folder / "broken.png").exists():
        (folder / "broken.png").replace(folder / "2.png")
    with pytest.raises(kind) as caught:
        api.train(config)
    assert not (folder / "runs").exists() and "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder), "F")


def test_references_that_cannot_be_used_are_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "broken.png")
    assert refusal(tmp_path, PromptError) == (
        "F/2.png: reference of prompt 'a blue square': 40 x 30 pixels; the model takes 16 x 16 pixels "
        "(width x height)"
    )
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    message = refusal(tmp_path, PromptError)
    assert message.startswith("F/2.png: reference of prompt 'a blue square': cannot be read as an")


def test_gold_without_any_reference_is_refused() -> None:
    with pytest.raises(ConfigError, match="no prompt has a golden reference"):
        References(None).check_files(PROMPTS)
    with pytest.raises(ConfigError, match="scenes are 48 x 48 pixels; the model takes 16 x 16"):
        References(reference).check_sizes(prompt_set(per_task=1), tiny_model())
