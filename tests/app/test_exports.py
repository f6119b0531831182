"""Whole files: a step's maps as one page, a run as one archive; of the shelf's runs alone, and up to a size."""

import csv
import io
import json
import zipfile

import httpx
import pytest
from app_toys import served, write_text_run, write_toy_run

from t2i_credit.app import exports
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


def test_what_leads_out_of_the_run_is_not_handed_out(tmp_path, place):
    run = write_toy_run(tmp_path / "runs/one")
    (run / "steps/000001/more.txt").symlink_to(place / "secret.txt")
    with pytest.raises(RunError, match="leads out of"):
        exports.export(RunShelf(tmp_path / "runs"), "archive", {"run": "one"})


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
