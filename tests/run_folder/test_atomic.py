"""Files and folders are written whole or not at all."""

import os

import pytest
from disk import everything, full_disk
from safetensors import SafetensorError

from t2i_credit.errors import RunError
from t2i_credit.run_folder.atomic import cannot, write_atomic, write_folder_atomic


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


def test_what_the_system_refuses_a_tensor_file_is_said_as_it_says_it(tmp_path):
    full = SafetensorError(
        "Error while serializing: I/O error: No space left on device (os error 28)"
    )
    said = str(cannot("written", tmp_path / "model.safetensors", full))
    assert said.endswith("model.safetensors: cannot be written: No space left on device")
    assert "not a whole" in str(cannot("read", tmp_path, SafetensorError("incomplete metadata")))
