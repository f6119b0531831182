import json
import random

import numpy as np
import pytest
import torch
from checkpoint_states import changed
from disk import everything, full_disk
from torch import nn

from t2i_credit.errors import RunError
from t2i_credit.run_folder.checkpoint import (
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    prune,
    save_checkpoint,
)


def toy(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    groups = [
        {"params": [*model[0].parameters()], "lr": 0.1 / 3},
        {"params": [*model[2].parameters()], "lr": 1e-3, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)


def train(model, optimizer, scheduler, steps):
    for step in steps:
        batch = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
        scheduler.step()


def save(folder, step, parts, **more):
    model, optimizer, scheduler = parts
    return save_checkpoint(
        folder,
        step,
        model_state=model.state_dict(),
        optimizer=optimizer,
        scheduler_state=scheduler.state_dict(),
        **more,
    )


def save_plain(folder, step, **more):
    return save_checkpoint(folder, step, model_state={"w": torch.arange(300.0)}, **more)


def test_training_from_a_checkpoint_equals_uninterrupted_training_bit_for_bit(tmp_path):
    whole = toy()
    train(*whole, range(6))
    first = toy()
    train(*first, range(3))
    save(tmp_path, 3, first)
    second = toy(seed=1)
    checkpoint = load_checkpoint(tmp_path)
    second[0].load_state_dict(checkpoint.model_state)
    second[1].load_state_dict(checkpoint.optimizer)
    second[2].load_state_dict(checkpoint.scheduler)
    train(*second, range(3, 6))
    for ours, theirs in zip(second[0].parameters(), whole[0].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert second[1].param_groups[0]["lr"] == whole[1].param_groups[0]["lr"]


def test_an_optimizer_state_comes_back_with_every_type_and_every_bit(tmp_path):
    parts = toy()
    train(*parts, range(2))
    save(tmp_path, 2, parts)
    expected, found = parts[1].state_dict(), load_checkpoint(tmp_path).optimizer
    assert found["param_groups"] == expected["param_groups"]
    assert isinstance(found["param_groups"][0]["betas"], tuple)
    assert list(found["state"]) == [0, 1, 2, 3]  # numbers, not texts
    for index, state in expected["state"].items():
        assert list(state) == ["step", "exp_avg", "exp_avg_sq"]
        for name, tensor in state.items():
            assert found["state"][index][name].dtype == tensor.dtype
            assert torch.equal(found["state"][index][name], tensor)


def test_extra_state_may_hold_random_states_tuples_and_exact_numbers(tmp_path):
    torch.manual_seed(3)
    random.seed(3)
    extra = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numbers": [0.1 + 0.2, 1e-320, float("inf"), True, None, 2**60, np.float64(1 / 3)],
        "a.b": torch.ones(1),
        "a": {"b": torch.zeros(1)},
    }
    save_plain(tmp_path, 1, extra=extra)
    expected = torch.rand(3), random.random()
    found = load_checkpoint(tmp_path).extra
    torch.set_rng_state(found["torch"])
    random.setstate(found["python"])
    assert torch.equal(torch.rand(3), expected[0])
    assert random.random() == expected[1]
    assert found["numbers"] == extra["numbers"]
    assert (found["a.b"].item(), found["a"]["b"].item()) == (1, 0)


def test_a_checkpoint_holds_no_pickle(tmp_path):
    parts = toy()
    train(*parts, range(1))
    path = save(tmp_path, 1, parts)
    assert everything(path) == ["model.safetensors", "state.json", "state.safetensors"]
    json.loads((path / "state.json").read_text())


def test_tied_and_strided_tensors_are_saved_and_the_callers_stay_as_they_are(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {"a": base, "tied": base, "turned": base.T, "row": base[1], "half": base.bfloat16()}
    save_checkpoint(tmp_path, 1, model_state=state)
    found = load_checkpoint(tmp_path).model_state
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
    assert state["a"].data_ptr() == state["tied"].data_ptr()


def test_a_model_that_saves_itself_gets_a_folder_that_is_checked_like_the_rest(tmp_path):
    def save_model(folder):
        (folder / "deep").mkdir()
        (folder / "deep" / "config.json").write_text('{"layers": 4}')

    path = save_checkpoint(tmp_path, 1, model_state=save_model)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.model_state is None
    assert (checkpoint.model_folder / "deep" / "config.json").read_text() == '{"layers": 4}'
    (path / "model" / "deep" / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"deep/config\.json: 1 bytes instead of 13"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_truncated_or_missing_file_is_named_in_one_line(tmp_path, name, damage):
    file = save_plain(tmp_path, 1, extra={"t": torch.ones(5)}) / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(RunError, match=rf"000001/{name}: ") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_header_of_the_right_size_is_named(tmp_path):
    file = save_plain(tmp_path, 1) / "model.safetensors"
    file.write_bytes(b"\xff" * file.stat().st_size)
    with pytest.raises(RunError, match=r"model\.safetensors: damaged"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors"])
def test_zeros_in_the_middle_of_tensors_are_noticed(tmp_path, name):
    tensors = {"weight": torch.randn(64, 64)}
    path = save_checkpoint(tmp_path, 3, model_state=tensors, extra={"moments": torch.randn(5000)})
    whole = (path / name).read_bytes()
    (path / name).write_bytes(whole[:4000] + bytes(4096) + whole[8096:])
    assert len((path / name).read_bytes()) == len(whole)
    with pytest.raises(RunError, match=rf"{name}: damaged, not what was written; delete"):
        load_checkpoint(tmp_path)
    (path / name).write_bytes(whole)
    assert torch.equal(load_checkpoint(tmp_path).model_state["weight"], tensors["weight"])


def test_a_checkpoint_without_digests_is_read_as_before(tmp_path):
    path = save_checkpoint(tmp_path, 3, model_state={"weight": torch.ones(2)})
    state = json.loads((path / "state.json").read_text())
    assert sorted(state.pop("sha256")) == ["model.safetensors", "state.safetensors"]
    del state["digest"]
    (path / "state.json").write_text(json.dumps(state | {"format": 1}))
    assert load_checkpoint(tmp_path).step == 3


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../../b", "x" * 5000, "x\n\x1b[2Jy", ""]
)
def test_names_that_are_none_of_a_checkpoint_are_not_looked_at(tmp_path, name):
    path = save_checkpoint(tmp_path, 3, model_state={"weight": torch.ones(2)})
    changed(path, lambda state: state["files"].update({name: 1}))
    with pytest.raises(
        RunError, match=r"state.json: damaged, not the state of a checkpoint"
    ) as told:
        load_checkpoint(tmp_path)
    assert str(told.value).isprintable()


def test_a_newer_format_is_refused(tmp_path):
    file = save_plain(tmp_path, 1) / "state.json"
    file.write_text(file.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(RunError, match="checkpoint format 3"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"step": 3', '"step": 4'), ('["samples", 8]', '["samples", -8]'), ('"digest"', '"digests"')],
)
def test_a_changed_state_is_noticed(tmp_path, old, new):
    path = save_checkpoint(tmp_path, 3, model_state={"w": torch.ones(2)}, extra={"samples": 8})
    text = (path / "state.json").read_text()
    assert old in text
    (path / "state.json").write_text(text.replace(old, new))
    with pytest.raises(RunError, match=r"state\.json: damaged, not what was written; delete"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_in_the_folder_of_another_step_is_refused(tmp_path):
    path = save_plain(tmp_path, 2)
    path.rename(path.with_name("000003"))
    with pytest.raises(RunError, match=r"state\.json: of step 2, in the folder of step 3"):
        load_checkpoint(tmp_path)


# The model's 300 floats are 1,200 bytes and a short header; 1,000 floats are 4,000 bytes.
@pytest.mark.parametrize(
    ("limit", "extra"),
    [(1000, {}), (3000, {"t": torch.zeros(1000)}), (3000, {"text": "x" * 4000})],
    ids=["model", "tensors", "json"],
)
def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_older_ones(tmp_path, limit, extra):
    save_plain(tmp_path, 1)
    before = everything(tmp_path)
    with full_disk(limit), pytest.raises(RunError, match=r"000002.*: cannot be written") as caught:
        save_plain(tmp_path, 2, extra=extra)
    assert "\n" not in str(caught.value)
    assert ".tmp" not in str(caught.value)
    assert everything(tmp_path) == before


def test_a_model_that_fails_to_save_itself_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 1, model_state=fail)
    assert everything(tmp_path) == []


def test_what_a_checkpoint_cannot_hold_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match=r"cannot hold extra\.world: a set"):
        save_plain(tmp_path, 1, extra={"world": {1, 2}})
    assert everything(tmp_path) == []


def test_only_complete_checkpoints_are_listed_and_the_latest_is_by_number(tmp_path):
    assert list_checkpoints(tmp_path / "none") == []
    assert latest_checkpoint(tmp_path) is None
    with pytest.raises(RunError, match="there is no checkpoint here"):
        load_checkpoint(tmp_path)
    for step in (1_000_000, 20, 999_999):
        save_plain(tmp_path, step)
    (tmp_path / ".000030.9-ab.tmp").mkdir()
    (tmp_path / "notes").mkdir()
    assert list_checkpoints(tmp_path) == [20, 999_999, 1_000_000]
    assert latest_checkpoint(tmp_path) == tmp_path / "1000000"
    assert load_checkpoint(tmp_path).step == 1_000_000
    assert load_checkpoint(tmp_path, 20).step == 20
    with pytest.raises(RunError, match="no checkpoint of step 5; there are"):
        load_checkpoint(tmp_path, 5)


def test_pruning_keeps_the_latest(tmp_path):
    for step in (1, 2, 3):
        save_plain(tmp_path, step)
    assert prune(tmp_path, keep=2) == [1]
    assert everything(tmp_path)[0] == "000002"
    save_plain(tmp_path, 4, keep=1)
    assert list_checkpoints(tmp_path) == [4]
    assert prune(tmp_path, keep=5) == []


def test_saving_a_step_again_replaces_it(tmp_path):
    for value in (1, 2):
        save_plain(tmp_path, 1, extra={"value": value})
    assert load_checkpoint(tmp_path).extra == {"value": 2}
    assert list_checkpoints(tmp_path) == [1]
