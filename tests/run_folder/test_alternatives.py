"""The likeliest other codes in a run folder: they come back as they were written, and damage costs nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from run_folders import H, V, W, new_run, toy_rollout, write_toy_step
from safetensors.numpy import load_file, save_file

from t2i_credit.errors import RunError
from t2i_credit.heatmap.files import write_heatmaps
from t2i_credit.run_folder.alternatives import (
    has_alternatives,
    most_side,
    read_alternatives,
)
from t2i_credit.run_folder.reader import MOST_PIXELS, RunReader

K, S = 3, 2
ARRAYS, PICTURE = "alternatives.safetensors", "0002-alternatives.png"


def written(path: Path, **changes: Any) -> tuple[Path, torch.Tensor]:
    """A run with one step that has them, and their pictures."""
    rollout = toy_rollout()
    generator = torch.Generator().manual_seed(1)
    shape = (len(rollout), H * W, K)
    rollout = replace(
        rollout,
        alternatives=torch.randint(V, shape, generator=generator),
        alternative_logprobs=-torch.rand(shape, generator=generator),
    )
    pictures = torch.rand(len(rollout), 3, K * H * S, W * S, generator=generator)
    write_toy_step(new_run(path), 1, rollout, swapped=pictures, **changes)
    return path / "steps" / "000001", pictures


def test_they_come_back_as_they_were_written(tmp_path: Path) -> None:
    _, pictures = written(tmp_path / "r", rows=[2, 3])
    record = RunReader(tmp_path / "r").step()
    assert has_alternatives(record)
    found = read_alternatives(record, 1)
    assert found is not None and found.side == S
    assert found.codes.shape == found.logprobs.shape == (H * W, K)
    assert found.codes.dtype == np.int32 and found.logprobs.dtype == np.float32
    expected = (pictures[3].permute(1, 2, 0) * 255).round().byte().numpy()
    np.testing.assert_array_equal(np.asarray(found.pictures), expected)


def test_a_run_without_them_has_none(tmp_path: Path) -> None:
    write_toy_step(new_run(tmp_path / "r"), 1)
    record = RunReader(tmp_path / "r").step()
    assert not has_alternatives(record) and read_alternatives(record, 0) is None


@pytest.mark.parametrize(("grid", "count"), [((24, 24), 4), ((90, 90), 8), ((1, 2000), 8)])
def test_the_picture_of_a_sample_is_never_larger_than_one_that_is_read(
    grid: tuple[int, int], count: int
) -> None:
    side = most_side(grid, count)
    assert 1 <= side <= 32
    assert count * grid[0] * side * grid[1] * side <= MOST_PIXELS


def change(**arrays: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        found = load_file(folder / ARRAYS)
        save_file({n: arrays.get(n, lambda a: a)(a) for n, a in found.items()}, folder / ARRAYS)

    return damage


def in_place(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return damage


def picture(*size: int) -> Callable[[Path], None]:
    return lambda path: Image.new("RGB", size).save(path)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a code beyond all": (change(codes=lambda a: a + V), "codes: not all below"),
    "a code below none": (change(codes=lambda a: a - V), "codes: not all below"),
    "codes that are floats": (change(codes=lambda a: a.astype(np.float32)), "type float32"),
    "log-probs that are whole": (change(logprobs=lambda a: a.astype(np.int32)), "type int32"),
    "log-probs beyond all": (change(logprobs=lambda a: a * np.float64(1e300)), "type float64"),
    "other samples": (change(codes=lambda a: a[:2].copy()), "samples.json asks for"),
    "two dimensions": (change(codes=lambda a: a[..., 0].copy()), "samples.json asks for"),
    "nine of them": (change(codes=lambda a: np.repeat(a, 3, 2)), "1 to 8"),
    "none of them": (change(codes=lambda a: a[..., :0].copy()), "1 to 8"),
    "fewer log-probs": (change(logprobs=lambda a: a[..., :2].copy()), "one each is needed"),
    "no codes": (lambda f: save_file({"logprobs": np.zeros(1)}, f / ARRAYS), "codes missing"),
    "no arrays": (lambda f: (f / ARRAYS).write_bytes(b"x"), "not a whole .safetensors file"),
    "a pipe": (in_place(ARRAYS, os.mkfifo), "not a regular file"),
    "eight gigabytes": (lambda f: os.truncate(f / ARRAYS, 8 << 30), "and at most"),
    "a way out": (in_place(ARRAYS, lambda p: p.symlink_to("/etc/hostname")), "leads out of"),
    "no picture": (lambda f: (f / PICTURE).unlink(), "No such file"),
    "a pipe for a picture": (in_place(PICTURE, os.mkfifo), "not a regular file"),
    "a picture from outside": (in_place(PICTURE, lambda p: p.symlink_to("/dev/zero")), "leads out"),
    "a broken picture": (lambda f: (f / PICTURE).write_bytes(b"x"), "not an image"),
    "a huge picture": (in_place(PICTURE, picture(9000, 9000)), "9000 x 9000 pixels, too many"),
    "fewer patches": (in_place(PICTURE, picture(W * S, H * S)), "not 3 times 5 x 3 patches"),
    "no patches": (in_place(PICTURE, picture(1, 1)), "not 3 times 5 x 3 patches"),
    "patches of 33 pixels": (in_place(PICTURE, picture(W * 33, K * H * 33)), "not 3 times"),
}


@pytest.mark.parametrize(("damage", "why"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_one_line_and_the_step_is_shown(
    tmp_path: Path, damage: Callable[[Path], None], why: str
) -> None:
    folder, _ = written(tmp_path / "r")
    damage(folder)
    record = RunReader(tmp_path / "r", within=tmp_path / "r").step()
    with pytest.raises(RunError) as caught:
        read_alternatives(record, 2)
    assert why in str(caught.value) and "\n" not in str(caught.value)
    assert record.image(2).size == (10, 6)
    assert write_heatmaps(tmp_path / "r")
