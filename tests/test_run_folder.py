import errno
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from disk import everything, full_disk

from t2i_credit.errors import RunError
from t2i_credit.interfaces import Prompt, Rollout
from t2i_credit.run_folder.atomic import write_atomic, write_folder_atomic, write_json
from t2i_credit.run_folder.layout import decode_mask, encode_mask
from t2i_credit.run_folder.reader import RunReader, list_runs
from t2i_credit.run_folder.writer import RunWriter

H, W, V, G = 3, 5, 16, 2


def new_run(path, *, resume=False, total=10):
    environment = {"device": "cpu", "seed": 0}
    return RunWriter.create(
        path, config={"model": {"name": "toy"}}, environment=environment, total=total, resume=resume
    )


def toy_rollout(prompts=2):
    generator = torch.Generator().manual_seed(0)
    rows = prompts * G

    def values():
        return torch.randn(rows, H * W, generator=generator)

    return Rollout(
        prompts=[Prompt(f"prompt {b // G}", "" if b < G else None) for b in range(rows)],
        group_size=G,
        tokens=torch.randint(V, (rows, H * W), generator=generator),
        mask=torch.ones(rows, H * W, dtype=torch.bool),
        logprobs=values(),
        negative_logprobs=values(),
        guided_logprobs=values(),
        sampling_logprobs=values(),
        entropy=values(),
        images=torch.rand(rows, 3, 6, 10, generator=generator),
    )


def write_toy_step(run, step, rollout=None, **changes):
    rollout = rollout or toy_rollout()
    credit = torch.ones_like(rollout.logprobs)
    rewards = torch.arange(len(rollout)).float()
    given = {
        "grid": (H, W),
        "codebook_size": V,
        "rewards": rewards,
        "reward_parts": {"detector": rewards / 2},
        "advantages": rewards - 1.5,
        "credit": credit,
        "token_advantages": (rewards - 1.5)[:, None] * credit,
    }
    return run.write_step(step, rollout, **{**given, **changes})


def set_status(path, **changes):
    known = json.loads((path / "status.json").read_text())
    write_json(path / "status.json", {**known, **changes})


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# ---- files, whole or not at all


def test_a_file_that_does_not_fit_on_the_disk_is_one_line_of_error_and_the_old_file_stays(tmp_path):
    path = tmp_path / "file.bin"
    write_atomic(path, b"old")
    with (
        full_disk(1000),
        pytest.raises(RunError, match=r"file\.bin: cannot be written: ") as caught,
    ):
        write_atomic(path, bytes(100_000))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert everything(tmp_path) == ["file.bin"]


def test_a_file_in_a_folder_that_is_missing_is_a_run_error(tmp_path):
    with pytest.raises(RunError, match=r"missing/file: cannot be written: No such file"):
        write_atomic(tmp_path / "missing" / "file", b"")


def test_a_folder_whose_block_fails_leaves_the_older_folder_as_it_was(tmp_path):
    with write_folder_atomic(tmp_path / "f") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(KeyError), write_folder_atomic(tmp_path / "f") as folder:
        (folder / "a").write_text("new")
        raise KeyError("a bug")
    assert (tmp_path / "f" / "a").read_text() == "old"
    assert everything(tmp_path) == ["f", "f/a"]


def test_a_folder_replaces_an_older_one_as_a_whole(tmp_path):
    for name in ("a", "b"):
        with write_folder_atomic(tmp_path / "f") as folder:
            (folder / name).write_text(name)
    assert everything(tmp_path) == ["f", "f/b"]


def test_a_folder_that_must_be_new_does_not_replace_one_that_appeared_meanwhile(tmp_path):
    with (
        pytest.raises(RunError, match="cannot be written"),
        write_folder_atomic(tmp_path / "f", replace=False),
    ):
        (tmp_path / "f").mkdir()
        (tmp_path / "f" / "theirs").touch()
    assert everything(tmp_path) == ["f", "f/theirs"]


def test_new_files_and_folders_have_the_permissions_that_the_umask_allows(tmp_path):
    umask = os.umask(0o022)
    try:
        with write_folder_atomic(tmp_path / "f") as folder:
            write_atomic(folder / "a", b"")
    finally:
        os.umask(umask)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "f" / "a").stat().st_mode & 0o777 == 0o644


# ---- creating and resuming


def test_a_new_run_tells_its_configuration_environment_and_status(tmp_path):
    new_run(tmp_path / "r", total=7)
    reader = RunReader(tmp_path / "r")
    assert reader.config() == {"model": {"name": "toy"}}
    assert reader.environment() == {"format": 1, "device": "cpu", "seed": 0}
    status = reader.status()
    assert (status.state, status.step, status.total, status.pid) == ("running", 0, 7, os.getpid())
    assert reader.metrics() == reader.steps() == reader.checkpoints() == reader.evaluations() == []


def test_an_existing_run_is_refused_and_resume_is_offered(tmp_path):
    new_run(tmp_path / "r")
    with pytest.raises(RunError, match=r"r: this run exists: continue it with --resume"):
        new_run(tmp_path / "r")


def test_a_folder_with_other_things_in_it_is_refused_and_an_empty_one_is_taken(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(RunError, match="other: exists and is not a run folder"):
        new_run(tmp_path / "other")
    (tmp_path / "empty").mkdir()
    assert RunReader(new_run(tmp_path / "empty").path).status().state == "running"


def test_a_run_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    with full_disk(10), pytest.raises(RunError, match=r"/r/config\.yaml: cannot be written"):
        new_run(tmp_path / "r")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file/r: cannot be written"):
        new_run(tmp_path / "file" / "r")
    assert everything(tmp_path) == ["file"]


def test_resuming_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="r: not a run folder"):
        new_run(tmp_path / "r", resume=True)


def test_resuming_cuts_everything_back_to_the_latest_checkpoint(tmp_path):
    run = new_run(tmp_path / "r")
    for step in range(1, 6):
        run.append_metrics(step, {"reward": step / 10})
        write_toy_step(run, step)
    (run.checkpoints / "000003").mkdir(parents=True)
    (run.checkpoints / ".000005.1-ab.tmp").mkdir()  # a killed process was writing it
    (tmp_path / "r" / ".status.json.1-ab.tmp").touch()
    with open(tmp_path / "r" / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 6, "rew')
    again = new_run(tmp_path / "r", resume=True, total=20)
    reader = RunReader(tmp_path / "r")
    assert again.resume_step == 3
    assert [line["step"] for line in reader.metrics()] == [1, 2, 3]
    assert reader.steps() == [1, 2, 3]
    assert not [name for name in everything(tmp_path) if name.endswith(".tmp")]
    assert (reader.status().step, reader.status().total) == (3, 20)
    assert [entry["step"] for entry in reader.environment()["resumed"]] == [3]
    again.append_metrics(4, {"reward": 0.4})
    assert [line["step"] for line in reader.metrics()] == [1, 2, 3, 4]


def test_resuming_without_a_checkpoint_starts_from_the_beginning(tmp_path):
    run = new_run(tmp_path / "r")
    run.append_metrics(1, {})
    write_toy_step(run, 1)
    assert new_run(tmp_path / "r", resume=True).resume_step == 0
    assert RunReader(tmp_path / "r").metrics() == RunReader(tmp_path / "r").steps() == []


def test_a_run_that_another_live_process_writes_cannot_be_resumed(tmp_path):
    new_run(tmp_path / "r")
    set_status(tmp_path / "r", pid=os.getppid())
    with pytest.raises(RunError, match=f"process {os.getppid()} is writing this run"):
        new_run(tmp_path / "r", resume=True)
    set_status(tmp_path / "r", pid=dead_pid())
    new_run(tmp_path / "r", resume=True)


@pytest.mark.parametrize("found", [2, 0, "1", None])
def test_a_format_of_another_version_is_refused_in_one_line(tmp_path, found):
    run = new_run(tmp_path / "r")
    write_json(run.path / "environment.json", {"format": found})
    with pytest.raises(RunError, match=f"r: run folder format {found!r}; this version reads 1"):
        RunReader(run.path)


# ---- status


def test_leaving_the_run_says_how_it_ended(tmp_path):
    with new_run(tmp_path / "finished"):
        pass
    with pytest.raises(ZeroDivisionError), new_run(tmp_path / "failed"):
        _ = 1 / 0
    with pytest.raises(KeyboardInterrupt), new_run(tmp_path / "stopped"):
        raise KeyboardInterrupt
    states = {p.name: RunReader(p).status() for p in tmp_path.iterdir()}
    assert {name: status.state for name, status in states.items()} == {
        name: name for name in ("finished", "failed", "stopped")
    }
    assert states["failed"].message == "division by zero"


def test_an_error_of_training_is_not_hidden_by_a_full_disk(tmp_path):
    with pytest.raises(ZeroDivisionError), new_run(tmp_path / "r"), full_disk(10):
        _ = 1 / 0
    with pytest.raises(ZeroDivisionError), new_run(tmp_path / "gone") as run:
        run.path.rename(tmp_path / "moved")
        _ = 1 / 0


def test_a_running_run_whose_process_is_gone_or_silent_was_killed(tmp_path):
    run = new_run(tmp_path / "r")
    reader = RunReader(run.path)
    assert reader.status().state == "running"
    set_status(run.path, pid=dead_pid())
    assert reader.status().state == "killed"
    set_status(run.path, pid=os.getpid(), heartbeat=time.time() - 100)
    assert reader.status(stale_after=200).state == "running"
    assert reader.status(stale_after=50).state == "killed"
    set_status(run.path, state="finished")
    assert reader.status(stale_after=50).state == "finished"


def test_a_process_number_of_another_machine_says_nothing(tmp_path):
    run = new_run(tmp_path / "r")
    set_status(run.path, pid=dead_pid(), host=socket.gethostname() + "-2")
    status = RunReader(run.path).status()
    assert (status.state, status.here) == ("running", False)


def test_a_dead_child_that_nobody_waited_for_counts_as_gone(tmp_path):
    run = new_run(tmp_path / "r")
    child = subprocess.Popen([sys.executable, "-c", ""])
    set_status(run.path, pid=child.pid)
    deadline = time.time() + 20
    while RunReader(run.path).status().state != "killed" and time.time() < deadline:
        time.sleep(0.02)
    assert RunReader(run.path).status().state == "killed"
    child.wait()


def test_heartbeats_move_the_step_and_are_rare_otherwise(tmp_path):
    run = new_run(tmp_path / "r")
    first = RunReader(run.path).status().heartbeat
    run.heartbeat()
    assert RunReader(run.path).status().heartbeat == first
    run.heartbeat(4)
    status = RunReader(run.path).status()
    assert status.step == 4
    assert status.heartbeat >= first


def test_runs_are_listed_running_first_then_newest_and_unreadable_ones_last(tmp_path):
    for age, name in enumerate(["new", "old", "older"]):
        new_run(tmp_path / name)
        set_status(tmp_path / name, started=1000.0 - age, state="finished")
    set_status(tmp_path / "older", state="running")
    new_run(tmp_path / "later")
    write_json(tmp_path / "later" / "environment.json", {"format": 99})
    (tmp_path / "no-run").mkdir()
    found = list_runs(tmp_path)
    assert [run.path.name for run in found] == ["older", "new", "old", "later"]
    assert [run.state for run in found] == ["running", "finished", "finished", "unreadable"]
    assert "format 99" in found[-1].message
    assert [run.path for run in list_runs(tmp_path / "new")] == [tmp_path / "new"]
    assert list_runs(tmp_path / "nowhere") == []


# ---- metrics


def test_metrics_come_back_as_they_were_and_what_is_not_finite_is_null(tmp_path):
    run = new_run(tmp_path / "r")
    run.append_metrics(1, {"loss": 0.1 + 0.2, "kl": float("nan"), "reward": torch.tensor(0.5)})
    run.append_metrics(2, {"loss": np.float32(0.25), "kl": float("inf")})
    assert RunReader(run.path).metrics() == [
        {"step": 1, "loss": 0.1 + 0.2, "kl": None, "reward": 0.5},
        {"step": 2, "loss": 0.25, "kl": None},
    ]


def test_a_line_that_is_still_being_written_is_left_out(tmp_path):
    run = new_run(tmp_path / "r")
    run.append_metrics(1, {"loss": 1.0})
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 2, "loss": 0.5}')  # whole JSON, but the line has no end yet
    assert [line["step"] for line in RunReader(run.path).metrics()] == [1]


def test_a_damaged_line_is_named(tmp_path):
    run = new_run(tmp_path / "r")
    (run.path / "metrics.jsonl").write_bytes(b'{"step": 1}\n\0\0\0\n{"step": 3}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2: damaged"):
        RunReader(run.path).metrics()


def test_metrics_that_do_not_fit_on_the_disk_leave_the_file_with_whole_lines(tmp_path):
    run = new_run(tmp_path / "r")
    run.append_metrics(1, {"loss": 1.0})
    before = (run.path / "metrics.jsonl").read_bytes()
    with (
        full_disk(len(before) + 5),
        pytest.raises(RunError, match=r"metrics\.jsonl: cannot be wri"),
    ):
        run.append_metrics(2, {"loss": 1.0})
    assert (run.path / "metrics.jsonl").read_bytes() == before


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
