"""`log.alternatives` in a run: what it records, that nothing else of the run changes, golden references, a stop and a resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import PROMPTS, recipe, tiny_model
from training_runs import assert_same_run, silent, stop_at, trained

from t2i_credit import api
from t2i_credit.rollout.images import to_uint8
from t2i_credit.run_folder.alternatives import has_alternatives, read_alternatives
from t2i_credit.run_folder.reader import RunReader

LOG = {"samples_every": 3, "groups": 1, "probes": 1}
NAMES = ("alternatives.safetensors", *(f"{place:04d}-alternatives.png" for place in range(8)))


def test_a_run_is_the_same_with_them_and_older_steps_have_none(tmp_path: Path) -> None:
    plain = trained(tmp_path, train={"name": "plain"})
    asked = trained(tmp_path, train={"name": "asked"}, log={**LOG, "alternatives": 2})
    assert_same_run(asked, plain)
    assert not any(has_alternatives(plain.step(step)) for step in plain.steps())
    assert all(has_alternatives(asked.step(step)) for step in asked.steps())


def test_what_is_recorded_is_what_the_model_thinks_and_its_decoder_shows(tmp_path: Path) -> None:
    run = trained(tmp_path, log={**LOG, "alternatives": 3}, train={"steps": 1})
    record, model = run.step(1), tiny_model()  # the policy of the first step
    for place in (0, 7):  # a trained sample, and one of a probe
        found = read_alternatives(record, place)
        assert found is not None and found.codes.shape == (4, 3) and found.side == 8
        sample = record.samples[place]
        tokens = torch.from_numpy(record.arrays["tokens"][place : place + 1]).long()
        condition = model.condition([sample["prompt"]], [sample["negative"]])
        for k in range(3):
            for t in range(4):
                swapped = tokens.clone()
                swapped[0, t] = int(found.codes[t, k])
                # its log-prob does not depend on the tokens after it
                with torch.no_grad():
                    scored = model(condition, swapped, want=["guided_logprobs"], cfg_scale=2.0)
                expected = float(scored["guided_logprobs"][0, t])
                assert found.logprobs[t, k] == pytest.approx(expected, abs=1e-4)
                row, column = divmod(t, 2)  # a grid of 2 x 2 is swapped one by one
                there = (slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
                picture = np.asarray(found.pictures)[16 * k : 16 * k + 16][there]
                shown = to_uint8(model.decode(swapped))[0][there]
                assert np.abs(picture.astype(int) - shown).max() <= 1
        assert (found.codes != tokens[0].numpy()[:, None]).all()
        assert (np.diff(found.logprobs, axis=1) <= 0).all()


def test_a_resumed_run_records_them_as_the_uninterrupted_one(tmp_path: Path) -> None:
    log = {"log": {**LOG, "alternatives": 2}, "rollout": {"batch_size": 2}}
    whole = trained(tmp_path, **log, train={"name": "whole"})
    broken = recipe(tmp_path, **log, train={"name": "broken"})
    with pytest.raises(KeyboardInterrupt):
        api.train(broken, report=stop_at(5), warn=silent)
    api.train(broken, resume=True, warn=lambda line: None)
    left = RunReader(tmp_path / "runs" / "broken")
    assert_same_run(left, whole)
    for step in whole.steps():
        for name in NAMES:
            one, other = (run.step_folder(step) / name for run in (left, whole))
            assert one.read_bytes() == other.read_bytes(), (step, name)


def test_a_golden_reference_has_none(tmp_path: Path) -> None:
    sections = {
        "rollout": {"gold": True},
        "reward": {"toys:constant": {}},
        "loss": {"ratio": "sequence"},
        "train": {"steps": 1},
    }
    config = recipe(tmp_path, **sections, log={**LOG, "alternatives": 2})
    references = [{"text": p.text, "reference": "gold.png"} for p in PROMPTS]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, references)))
    Image.new("RGB", (16, 16)).save(tmp_path / "gold.png")
    record = RunReader(api.train(config, warn=lambda line: None)).step(1)
    golden = [place for place, sample in enumerate(record.samples) if sample["gold"]]
    assert golden == [3]  # the last of the group; a probe is never replaced
    for place in range(8):
        found = read_alternatives(record, place)
        assert found is not None
        assert (found.codes == -1).all() if place == 3 else (found.codes >= 0).all()
        if place == 3:
            assert np.isnan(found.logprobs).all()
