"""Whole files: a step's maps as one page, a run as one archive; of the shelf's runs alone, and up to a size."""

import asyncio
import csv
import io
import json
import logging
import os
import tempfile
import threading
import time
import zipfile

import httpx
import pytest
from app_toys import served, write_text_run, write_toy_run

from t2i_credit.app import credit_maps, exports, guard, handed_out, single_file, tail
from t2i_credit.app.runs import RunShelf
from t2i_credit.errors import RunError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("exports")
    write_toy_run(root / "runs/one")
    write_text_run(root / "runs/words")
    (root / "secret.txt").write_text("secret")
    return root


@pytest.fixture(scope="module")
def client(place):
    with (
        served(place / "runs") as facts,
        httpx.Client(base_url=facts["address"], timeout=120) as one,
    ):
        yield one


def archive_of(content):
    return zipfile.ZipFile(io.BytesIO(content))


def test_an_archive_holds_metrics_as_a_table_and_every_file_of_the_steps(client, place):
    answer = client.get("t2i/archive", params={"run": "one"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''one.zip"
    archive, run = archive_of(answer.content), place / "runs/one"
    assert archive.testzip() is None
    recorded = [path for path in (run / "steps").rglob("*") if path.is_file()]
    assert len(recorded) > 6
    for path in [*recorded, run / "config.yaml", run / "metrics.jsonl"]:
        assert archive.read(f"one/{path.relative_to(run).as_posix()}") == path.read_bytes()
    table = list(csv.DictReader(archive.read("one/metrics.csv").decode().splitlines()))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [float(row["reward"]) for row in table] == [line["reward"] for line in lines]


@pytest.mark.parametrize(("step", "given"), [("1", 1), ("4", 5), ("", 9), ("x", 9)])
def test_a_page_is_one_of_the_recorded_step_next_to_the_wanted_one(client, step, given):
    answer = client.get("t2i/page", params={"run": "one", "step": step})
    assert (
        answer.status_code == 200
        and f"one-step{given}.html" in answer.headers["content-disposition"]
    )
    assert f"Where the reward landed, step {given}" in answer.text


def test_a_run_on_text_is_handed_out_too(client):
    assert client.get("t2i/page", params={"run": "words"}).text.startswith("<!doctype html>")
    names = archive_of(client.get("t2i/archive", params={"run": "words"}).content).namelist()
    assert "words/steps/000009/samples.json" in names


@pytest.mark.parametrize("run", ["", "none", "..", "../one", "/etc", "one/steps", "a\0b"])
@pytest.mark.parametrize("kind", ["page", "archive"])
def test_nothing_but_a_run_is_handed_out(client, kind, run):
    answer = client.get(f"t2i/{kind}", params={"run": run})
    assert answer.status_code == 404 and answer.text.count("\n") == 1


def names_in(shelf, run="one"):
    with exports.export(shelf, "archive", {"run": run}).file as file:
        return zipfile.ZipFile(file).namelist()


def test_links_and_names_that_are_no_plain_text_are_left_out(tmp_path, place):
    run = write_toy_run(tmp_path / "runs/one")
    whole = names_in(shelf := RunShelf(tmp_path / "runs"))
    step = run / "steps/000001"
    (step / "more.txt").symlink_to(place / "secret.txt")
    (step / "again.png").symlink_to(step / "0000.png")
    (step / "up").symlink_to("..")
    (run / "steps/000002").symlink_to("/etc")
    for name in (
        b"half \xff",
        b"..\\..\\x.bat",
        b"two\nlines",
        "\u202egpj.exe".encode(),
        b"\x1b[31m",
    ):
        (step / os.fsdecode(name)).write_text("x")
    os.mkfifo(step / "pipe")
    assert names_in(shelf) == whole


def test_a_table_of_very_many_names_stays_small(tmp_path):
    run = write_toy_run(tmp_path / "runs/one")
    lines = [{"step": i, **{f"m{i}_{j}": j for j in range(100)}, "x": [[]]} for i in range(2000)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    began = time.monotonic()
    shelf = RunShelf(tmp_path / "runs")
    with exports.export(shelf, "archive", {"run": "one"}).file as file:
        table = zipfile.ZipFile(file).read("one/metrics.csv").decode().splitlines()
    assert time.monotonic() - began < 60
    assert len(table[0].split(",")) == tail.MOST_NAMES and len(table) <= 2001
    assert table[-1].startswith("1999,")


def test_a_page_leaves_out_what_does_not_fit_and_says_so(tmp_path, monkeypatch):
    write_toy_run(tmp_path / "runs/one")
    shelf = RunShelf(tmp_path / "runs")
    reader = shelf.open("one")
    whole = single_file.groups(shelf, reader, [9])
    read, first = [], len(json.dumps(whole[0]))
    monkeypatch.setattr(type(reader), "step", counted(type(reader).step, read))
    some = single_file.groups(shelf, reader, [9], int(1.5 * first))
    assert len(some) == 1 < len(whole) and some[0]["prompts"] == some[0]["prompts"][:1]
    assert len(read) == 1  # once, whatever it holds
    said = f"1 of {len(whole)} groups, the others are left out"
    assert said in single_file.page(reader, some, len(whole))
    with pytest.raises(RunError, match="no group fits into a page"):
        single_file.groups(shelf, reader, [9], 1000)


def test_a_page_opens_on_the_group_that_the_app_opens(tmp_path):
    file = write_toy_run(tmp_path / "one") / "steps/000009/samples.json"
    content = json.loads(file.read_text())
    for sample in content["samples"]:
        sample["reward"] = 1.0 if sample["group"] == 0 else sample["reward"]
    file.write_text(json.dumps(content))
    shelf = RunShelf(tmp_path)
    pages = single_file.groups(shelf, shelf.open("one"), [5, 9])
    opened = [credit_maps.show(shelf, "one", {"step": step})["group"]["number"] for step in (9, 5)]
    shown = [(page["group"]["step"], page["group"]["number"]) for page in pages]
    assert opened == [1, 0] and shown == [(9, 1), (9, 0), (5, 0), (5, 1)]


def counted(function, calls):
    def called(*args):
        calls.append(args)
        return function(*args)

    return called


def asked_of(door, path, receive=None):
    """(status, body) of a request, or None where it is not answered to its end."""
    sent = []

    async def send(message):
        sent.append(message)

    async def nothing_more():
        await asyncio.sleep(60)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}

    async def answered():
        await door(scope, receive or nothing_more, send)
        body = b"".join(message.get("body", b"") for message in sent[1:])
        ended = len(sent) > 1 and not sent[-1].get("more_body", False)
        return (sent[0]["status"], body) if ended else None

    return answered()


def test_few_files_are_made_at_a_time_and_reports_wait_for_none(monkeypatch, caplog):
    monkeypatch.setattr(handed_out, "WAIT_SECONDS", 0.2)
    going = threading.Event()

    def export(kind, asked):
        if kind == "archive":
            assert going.wait(60)
            raise ZeroDivisionError("a slip of ours")
        raise ValueError("not known")

    door = guard.Doorman(None, report=lambda *names: b"page", export=export)

    async def visits():
        slow = [asyncio.ensure_future(asked_of(door, "/t2i/archive")) for _ in range(2)]
        await asyncio.sleep(0.1)
        assert await asked_of(door, "/t2i/report") == (200, b"page")
        assert await asked_of(door, "/t2i/page") == (503, handed_out.BUSY)
        going.set()
        told = [await one for one in slow]
        return told, await asked_of(door, "/t2i/page")

    with caplog.at_level(logging.ERROR):
        told, after = asyncio.run(visits())
    assert {status for status, _ in told} == {500} == {after[0]}
    assert told[0][1] == b"This cannot be handed out: unexpected ZeroDivisionError\n"
    assert {record.exc_info[0] for record in caplog.records} == {ZeroDivisionError, ValueError}


def test_a_file_is_closed_when_its_visitor_has_left(tmp_path):
    file = tempfile.TemporaryFile()  # noqa: SIM115 - it is to be closed
    file.write(bytes(1 << 20))

    async def left():
        return {"type": "http.disconnect"}

    made = exports.Export("one.zip", "application/zip", file)
    door = guard.Doorman(None, export=lambda kind, asked: made)

    async def visit():
        return await asked_of(door, "/t2i/archive", left)

    assert asyncio.run(visit()) is None and file.closed


def test_what_is_handed_out_is_asked_for_by_get_alone(client):
    for kind in ("page", "archive", "report"):
        assert client.head(f"t2i/{kind}", params={"run": "one"}).status_code == 405


def test_a_refusal_does_not_repeat_a_very_long_name(client):
    for run in ("x" * 3000, "\u202e" * 400):
        answer = client.get("t2i/page", params={"run": run})
        assert answer.status_code == 404 and len(answer.text) < 400


def test_too_much_for_one_file_is_said(place, monkeypatch):
    shelf = RunShelf(place / "runs")
    monkeypatch.setattr(exports, "MOST_ARCHIVE", 1000)
    with pytest.raises(RunError, match="at most 1,000 go into one archive; copy the folder"):
        exports.export(shelf, "archive", {"run": "one"})
    monkeypatch.setattr(exports, "MOST_FILES", 3)
    with pytest.raises(RunError, match="3 files or more were recorded"):
        exports.export(shelf, "archive", {"run": "one"})
    with pytest.raises(RunError, match="allowed: page, archive"):
        exports.export(shelf, "everything", {"run": "one"})


def test_a_member_alone_gets_a_file(place):
    with served(place / "runs", login="me:a long password") as facts:
        for kind in ("page", "archive"):
            asked = {"run": "one"}
            assert httpx.get(f"{facts['address']}t2i/{kind}", params=asked).status_code == 401
