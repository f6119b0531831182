"""Steps and evaluations of a run: they come back as they were written, and damage is named."""

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from disk import everything, full_disk
from run_folders import G, H, V, W, new_run, toy_rollout, write_toy_step

from t2i_credit.errors import RunError
from t2i_credit.run_folder.layout import decode_mask, encode_mask
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.run_folder.writer import RunWriter

# ---- steps


def test_a_step_comes_back_as_it_was_written_on_a_grid_that_is_not_square(tmp_path):
    run, rollout = new_run(tmp_path / "r"), toy_rollout()
    contrast = torch.rand(4, H * W)
    folder = write_toy_step(run, 10, rollout, contrast=contrast)
    assert folder == tmp_path / "r" / "steps" / "000010"
    record = RunReader(run.path).step()
    assert (record.step, record.grid, record.group_size, record.codebook_size) == (10, (3, 5), G, V)
    for name in ("tokens", "logprobs", "negative_logprobs", "guided_logprobs", "entropy"):
        np.testing.assert_array_equal(record.arrays[name], getattr(rollout, name).numpy())
    np.testing.assert_array_equal(record.arrays["contrast"], contrast.numpy())
    difference = rollout.logprobs - rollout.negative_logprobs
    np.testing.assert_array_equal(record.signed_contrast(), difference.numpy())
    assert [sample["group"] for sample in record.samples] == [0, 0, 1, 1]
    assert [sample["negative"] for sample in record.samples] == ["", "", None, None]
    last = record.samples[3]
    assert (last["prompt"], last["reward"], last["advantage"]) == ("prompt 1", 3.0, 1.5)
    assert (last["reward_parts"], last["gold"], last["objects"]) == ({"detector": 1.5}, False, None)
    pixels = np.asarray(record.image(3))
    assert pixels.shape == (6, 10, 3)  # 6 rows, 10 columns
    expected = (rollout.images[3].permute(1, 2, 0) * 255).round().byte().numpy()
    np.testing.assert_array_equal(pixels, expected)


def test_a_step_keeps_only_the_rows_that_are_asked_for(tmp_path):
    run, rollout = new_run(tmp_path / "r"), toy_rollout()
    write_toy_step(run, 1, rollout, rows=torch.tensor([2, 3]))
    record = RunReader(run.path).step(1)
    assert [(s["index"], s["group"], s["image"]) for s in record.samples] == [
        (2, 1, "0000.png"),
        (3, 1, "0001.png"),
    ]
    np.testing.assert_array_equal(record.arrays["logprobs"], rollout.logprobs[2:].numpy())


def test_a_step_without_a_negative_branch_has_no_signed_contrast(tmp_path):
    run = new_run(tmp_path / "r")
    write_toy_step(run, 1, replace(toy_rollout(), negative_logprobs=None))
    record = RunReader(run.path).step()
    assert record.signed_contrast() is None
    assert "negative_logprobs" not in record.arrays


def test_half_precision_is_kept_as_float32_and_the_callers_tensors_stay(tmp_path):
    run, rollout = new_run(tmp_path / "r"), toy_rollout()
    images = rollout.images.clone() * 3 - 1  # beyond [0, 1]
    rollout = replace(rollout, logprobs=rollout.logprobs.bfloat16(), images=images)
    kept = images.clone()
    write_toy_step(run, 1, rollout)
    assert torch.equal(images, kept)
    logprobs = RunReader(run.path).step().arrays["logprobs"]
    np.testing.assert_array_equal(logprobs, rollout.logprobs.float().numpy())


def test_objects_come_back_with_their_masks(tmp_path):
    run = new_run(tmp_path / "r")
    mask = torch.zeros(6, 10, dtype=torch.bool)
    mask[1:3, 4:] = True
    known = [[{"name": "circle", "box": [4, 1, 10, 3], "mask": mask}], [], [{"name": "star"}], []]
    write_toy_step(run, 1, objects=known)
    objects = [sample["objects"] for sample in RunReader(run.path).step().samples]
    assert objects[1:] == [[], [{"name": "star"}], []]
    assert objects[0][0]["box"] == [4, 1, 10, 3]
    np.testing.assert_array_equal(decode_mask(objects[0][0]["mask"]), mask.numpy())


def test_a_mask_is_the_lengths_of_its_runs_the_first_one_of_false():
    mask = np.array([[True, True, False], [False, True, False]])
    # raster order T T F F T F: no False, 2 True, 2 False, 1 True, 1 False
    assert encode_mask(mask) == {"size": [2, 3], "counts": [0, 2, 2, 1, 1]}
    for whole in (mask, ~mask, np.zeros((2, 3), bool), np.ones((2, 3), bool)):
        np.testing.assert_array_equal(decode_mask(encode_mask(whole)), whole)


def test_a_step_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path):
    run = new_run(tmp_path / "r")
    with full_disk(1500), pytest.raises(RunError, match="cannot be written"):
        write_toy_step(run, 1)
    assert RunReader(run.path).steps() == []
    assert everything(run.path / "steps") == []


def test_a_refused_rename_leaves_the_step_that_was_there(tmp_path, monkeypatch):
    run = new_run(tmp_path / "r")
    write_toy_step(run, 1)
    rename = os.rename

    def refuse(source, target):
        if str(target).endswith("000001") and "tmp" in str(source) and not moved:
            moved.append(source)
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        rename(source, target)

    moved: list[str] = []
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(RunError, match="000001: cannot be written: Permission denied"):
        write_toy_step(run, 1)
    assert len(RunReader(run.path).step(1).samples) == 4
    assert everything(run.path / "steps")[0] == "000001"


def test_a_step_that_was_not_recorded_is_refused_with_those_that_were(tmp_path):
    run = new_run(tmp_path / "r")
    with pytest.raises(RunError, match="no step has been recorded yet"):
        RunReader(run.path).step()
    write_toy_step(run, 2)
    write_toy_step(run, 4)
    with pytest.raises(RunError, match="step 3 is not recorded; recorded: 2, 4"):
        RunReader(run.path).step(3)


@pytest.mark.parametrize("name", ["samples.json", "arrays.safetensors", "0001.png"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_file_of_a_step_is_named(tmp_path, name, damage):
    run = new_run(tmp_path / "r")
    file = write_toy_step(run, 1) / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(RunError, match=f"{name}: cannot be read") as caught:
        RunReader(run.path).step().image(1)
    assert "\n" not in str(caught.value)


def test_an_array_that_does_not_fit_the_grid_is_a_bug_and_said_so(tmp_path):
    run = new_run(tmp_path / "r")
    with pytest.raises(AssertionError, match="logprobs"):
        write_toy_step(run, 1, replace(toy_rollout(), logprobs=torch.zeros(4, 14)))


# ---- evaluations


def test_an_evaluation_is_added_to_a_run_that_has_ended(tmp_path):
    with new_run(tmp_path / "r"):
        pass
    lines = [{"filename": "0.png", "correct": True}, {"filename": "1.png", "correct": False}]
    RunWriter(tmp_path / "r").write_evaluation("geneval", {"overall": 0.5}, lines)
    reader = RunReader(tmp_path / "r")
    assert reader.evaluations() == ["geneval"]
    assert reader.evaluation("geneval") == {"overall": 0.5}
    assert reader.evaluation_images("geneval") == lines
    assert reader.status().state == "finished"


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden"])
def test_an_evaluation_name_that_leaves_the_folder_is_refused(tmp_path, name):
    run = new_run(tmp_path / "r")
    with pytest.raises(RunError, match="must be a plain file name"):
        run.write_evaluation(name, {})


def test_an_evaluation_that_is_missing_is_named(tmp_path):
    run = new_run(tmp_path / "r")
    with pytest.raises(RunError, match=r"none\.json: cannot be read: No such file"):
        RunReader(run.path).evaluation("none")
    assert RunReader(run.path).evaluation_images("none") == []
