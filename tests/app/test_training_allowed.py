"""Trainings from the page over the wire: only where they are allowed, on this machine alone, and never by what was sent."""

from __future__ import annotations

import uuid

import httpx
import pytest
from app_toys import served, write_toy_run

from t2i_credit.app.server import serve, start
from t2i_credit.app.trainings import Trainings
from t2i_credit.errors import UserError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("allowed") / "runs"
    write_toy_run(root / "finished", steps=())
    return root


@pytest.fixture(scope="module")
def client(place):
    with (
        served(place, trains=True) as facts,
        httpx.Client(base_url=facts["address"], timeout=120) as found,
    ):
        yield found


@pytest.fixture(scope="module")
def numbers(client):
    """{name: number} of the events of the panel."""
    config = client.get("config").json()
    found = {entry["api_name"]: entry["id"] for entry in config["dependencies"]}
    return {name: found[name] for name in ("start", "press", "check")}


def ask(client, number, data, **headers):
    session = uuid.uuid4().hex[:10]
    body = {"data": data, "fn_index": number, "session_hash": session}
    joined = client.post("gradio_api/queue/join", json=body, headers=headers)
    if joined.status_code != 200:
        return joined.text
    with client.stream("GET", f"gradio_api/queue/data?session_hash={session}") as stream:
        for line in stream.iter_lines():
            if "process_completed" in line or "close_stream" in line:
                return line
    return ""


def form(recipe="shapes/gcpo", name="", prompts="", credit="", steps=""):
    return [None, recipe, name, prompts, credit, steps, "", "", "", ""]


def files(root):
    return sorted(path.name for path in root.parent.rglob("*"))


def test_without_the_option_the_panel_is_not_there_and_its_events_are_refused(place, numbers):
    before = files(place)
    with served(place) as facts, httpx.Client(base_url=facts["address"], timeout=120) as plain:
        config = plain.get("config").json()
        names = {entry["api_name"] for entry in config["dependencies"]}
        assert not names & {"start", "press", "check"}
        shown = {str(one["props"].get("elem_id")) for one in config["components"]}
        assert not [name for name in shown if name.startswith("start")]
        for number in numbers.values():
            ask(plain, number, form())
    assert files(place) == before


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (form(name="../out"), "train.name"),
        (form(name="a\0b"), "train.name"),
        (form(name="\u202e" * 5000), "at most 100"),
        (form(recipe="os:abort"), ""),
        (form(credit="os:abort"), ""),
        (form(steps="1\ntrain.out: /tmp"), "not allowed here"),
        (form(steps={"a": [1]}), ""),
        (form(prompts="x" * 1_000_000), "1000000 letters"),
        (form(name="finished"), "this run exists"),
        ([None] * 10, ""),
        ([], ""),
    ],
)
def test_what_is_sent_starts_nothing_but_a_training_of_ours(client, place, numbers, sent, said):
    before = files(place)
    answer = ask(client, numbers["start"], sent)
    assert said in answer and "Traceback" not in answer
    assert files(place) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"host": "evil.example"},
    ],
)
def test_another_page_starts_nothing(client, place, numbers, headers):
    before = files(place)
    for name in numbers:
        ask(client, numbers[name], form(), **headers)
        body = {"data": form(), "fn_index": numbers[name], "session_hash": "abc"}
        sent = client.post("gradio_api/queue/join", json=body, headers=headers)
        assert sent.status_code == 403
    assert files(place) == before


def test_nobody_says_which_process_is_stopped(client, place, numbers):
    sign = ["Stop", "finished", "training", None]
    answer = ask(client, numbers["press"], [None, sign])
    assert '"success":true' in answer and "not started from this page" not in answer


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "a-name"])
def test_trainings_are_refused_where_others_can_reach_the_page(tmp_path, host):
    login = "me:a long password"
    with pytest.raises(UserError, match="--allow-training: only on this machine"):
        start(tmp_path, host=host, login=login, port=0, trainings=Trainings(tmp_path))
    with pytest.raises(UserError, match=r"only on this machine") as refused:
        serve(tmp_path, host=host, login=login, port=0, allow_training=True)
    assert "\n" not in str(refused.value)


def test_trainings_are_refused_in_a_run(tmp_path):
    run = write_toy_run(tmp_path / "one", steps=())
    with pytest.raises(UserError, match="is one run"):
        serve(run, port=0, allow_training=True)
