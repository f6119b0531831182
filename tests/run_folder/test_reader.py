"""What run_folder/reader.py makes of damaged and of hostile files: one line of error, or a run that is listed as unreadable."""

from __future__ import annotations

import json
import struct
import zlib

import pytest
from app_toys import say_state, start_toy_run, write_toy_run

from t2i_credit.errors import RunError
from t2i_credit.run_folder.reader import RunReader, list_runs

STATUS = [
    {"started": None},
    {"started": "yesterday"},
    {"heartbeat": float("nan")},
    {"pid": 2**63},
    {"pid": "1"},
    {"state": ["running"]},
    {"step": "9"},
    {"total": "9"},
    {"total": -1},
    {"message": 3},
]


@pytest.mark.parametrize("wrong", STATUS, ids=lambda wrong: next(iter(wrong)))
def test_a_damaged_status_leaves_the_other_runs_in_the_list(tmp_path, wrong):
    for name in ("good", "bad"):
        start_toy_run(tmp_path / name)
        say_state(tmp_path / name, "running")
    path = tmp_path / "bad" / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **wrong}))
    found = list_runs(tmp_path)
    assert [(run.path.name, run.state) for run in found] == [
        ("good", "running"),
        ("bad", "unreadable"),
    ]
    assert "status.json" in found[1].message and next(iter(wrong)) in found[1].message


@pytest.mark.parametrize("name", ["status.json", "environment.json"])
def test_json_nested_too_deeply_is_an_unreadable_run(tmp_path, name):
    start_toy_run(tmp_path / "bad")
    (tmp_path / "bad" / name).write_text("[" * 200_000)
    (found,) = list_runs(tmp_path)
    assert found.state == "unreadable" and name in found.message


def test_a_file_that_links_to_itself_is_an_unreadable_run(tmp_path):
    start_toy_run(tmp_path / "bad")
    status = tmp_path / "bad" / "status.json"
    status.unlink()
    status.symlink_to(status)
    (found,) = list_runs(tmp_path, within=tmp_path)
    assert found.state == "unreadable" and "status.json" in found.message


@pytest.mark.parametrize("step", ["1e400", '"5"', "-1", "2.5", "null", "true", "[" * 100_000])
def test_a_line_whose_step_is_no_step_is_damaged(tmp_path, step):
    start_toy_run(tmp_path / "one", steps=3)
    with (tmp_path / "one" / "metrics.jsonl").open("a") as file:
        file.write(f'{{"step": {step}, "reward": 1.0}}\n')
    reader = RunReader(tmp_path / "one")
    assert [row["step"] for row in reader.metrics(strict=False)] == [1, 2, 3]
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 4: damaged"):
        reader.metrics()


def huge_png() -> bytes:
    """The head of a picture of 30,000 x 30,000 pixels, more than Pillow is willing to unpack."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    size = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_picture_of_too_many_pixels_is_named_and_not_unpacked(tmp_path):
    path = write_toy_run(tmp_path / "one", steps=(9,))
    (path / "steps/000009/0000.png").write_bytes(huge_png())
    reader = RunReader(path)
    with pytest.raises(RunError, match=r"0000\.png: cannot be read"):
        reader.step(9).image(0)
    kept = path / "evaluations/train-cfg2/00000/samples"
    kept.mkdir(parents=True)
    (kept / "00000.png").write_bytes(huge_png())
    with pytest.raises(RunError, match=r"00000\.png: cannot be read"):
        reader.evaluation_image("train-cfg2", "00000/samples/00000.png")


@pytest.mark.parametrize("within", [True, False])
def test_a_file_name_that_no_system_takes_is_one_line(tmp_path, within):
    path = write_toy_run(tmp_path / "one", steps=(9,))
    reader = RunReader(path, within=tmp_path if within else None)
    record = reader.step(9)
    record.samples[0]["image"] = "a\0b.png"
    with pytest.raises(RunError, match="cannot be read"):
        record.image(0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"",
            "environment.json: cannot be read: damaged, not JSON (Expecting value, line 1, column 1)",
        ),
        (b"\xff", "environment.json: cannot be read: damaged, not a text (UTF-8)"),
        (b"[1]", "environment.json: holds a list, not an object"),
    ],
)
def test_a_damaged_file_is_called_so(tmp_path, content, said):
    path = write_toy_run(tmp_path / "one", steps=())
    (path / "environment.json").write_bytes(content)
    with pytest.raises(RunError) as caught:
        RunReader(path)
    assert str(caught.value) == f"{path}/{said}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [", "cannot be read: damaged: line 1: while parsing a flow node"),
        (b"some words", "holds 'some words', not sections (model: ...)"),
        (b"\xff", "cannot be read: damaged: is not a text file (UTF-8)"),
    ],
)
def test_a_damaged_configuration_is_called_so(tmp_path, content, said):
    path = write_toy_run(tmp_path / "one", steps=())
    (path / "config.yaml").write_bytes(content)
    with pytest.raises(RunError) as caught:
        RunReader(path).config()
    assert str(caught.value).startswith(f"{path}/config.yaml: {said}")


def test_checkpoints_that_lead_out_of_the_folder_are_refused(tmp_path):
    path = write_toy_run(tmp_path / "runs" / "one", steps=())
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "model.safetensors").write_bytes(b"secret")
    (path / "checkpoints" / "000001").mkdir(parents=True)
    (path / "checkpoints" / "000002").symlink_to(tmp_path / "secret")
    (path / "checkpoints" / "000003").mkdir()
    inner = path / "checkpoints" / "000003" / "model.safetensors"
    inner.symlink_to(tmp_path / "secret" / "model.safetensors")
    reader = RunReader(path, within=tmp_path / "runs")
    assert reader.checkpoint(1).name == "000001"
    for step in (2, 3):
        with pytest.raises(RunError, match="leads out"):
            reader.checkpoint(step)
    with pytest.raises(RunError, match="no checkpoint of step 4"):
        reader.checkpoint(4)


def test_a_status_of_a_newer_version_is_read(tmp_path):
    start_toy_run(tmp_path / "one")
    say_state(tmp_path / "one", "finished")
    path = tmp_path / "one" / "status.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "path": "elsewhere", "mood": "good"})
    )
    (found,) = list_runs(tmp_path)
    assert found.state == "finished" and found.path == tmp_path / "one"
