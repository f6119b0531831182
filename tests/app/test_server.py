"""The running server: what it refuses to hand out, what it escapes, whom it lets in."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import uuid
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import psutil
import pytest
from app_toys import PROBE, SCRIPT, served, write_toy_run

from t2i_credit.app.server import app_beside

SECRET = "a secret that lies beside the runs"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a secret, and runs beside it; one run's prompt is a script."""
    root = tmp_path_factory.mktemp("place")
    (root / "secret.txt").write_text(SECRET)
    write_toy_run(root / "runs" / "one")
    write_toy_run(root / "runs" / "script", prompts=(SCRIPT, PROBE), steps=(1, 2))
    (root / "runs" / "link").symlink_to(root)
    return root


@pytest.fixture(scope="module")
def facts(place):
    with served(place / "runs") as found:
        yield found


@pytest.fixture(scope="module")
def client(facts):
    with httpx.Client(base_url=facts["address"], timeout=120) as found:
        yield found


@pytest.fixture(scope="module")
def events(client):
    """{name: (number, how many inputs)} of the page's events, such as "choose"; of two, the one with fewer inputs."""
    found = {}
    for entry in client.get("config").json()["dependencies"]:
        for _, name in entry["targets"]:
            event = entry["id"], len(entry["inputs"])
            found[name] = min(event, found.get(name, event), key=lambda one: one[1])
    return found


def ask(client, event, data, event_data=None, session=None):
    """Sends an event, one of `events`, as a browser would, with `data` and null for its other inputs; returns everything
    that comes back."""
    session = session or uuid.uuid4().hex[:10]
    number, inputs = event
    data = [*data, *[None] * (inputs - len(data))]
    body = {"data": data, "fn_index": number, "session_hash": session, "event_data": event_data}
    joined = client.post("gradio_api/queue/join", json=body)
    if joined.status_code != 200:
        return joined.text
    answers = []
    with client.stream("GET", f"gradio_api/queue/data?session_hash={session}") as stream:
        for line in stream.iter_lines():
            answers.append(line)
            if "process_completed" in line or "close_stream" in line:
                break
    return "\n".join(answers)


PATHS = [
    "gradio_api/file={secret}",
    "gradio_api/file/{secret}",
    "file={secret}",
    "gradio_api/file=../secret.txt",
    "gradio_api/file=http://127.0.0.1/secret.txt",
    "gradio_api/proxy=http://127.0.0.1/secret.txt",
    "gradio_api/custom_component/x/client/a/..%2f..%2fsecret.txt",
    "gradio_api/stream/a/b/1/playlist.m3u8",
    "static/..%2f..%2f..%2f..%2f..%2f..%2f..{encoded}",
    "static/%2e%2e/%2e%2e/%2e%2e{secret}",
    "assets/..%5c..%5csecret.txt",
    "assets/%252e%252e/%252e%252e/secret.txt",
    "assets/{encoded}",
    "t2i/../secret.txt",
    "t2i/..%2fsecret.txt",
    "t2i/app.py",
    "svelte/..%2f..%2f{encoded}",
    "%2e%2e/secret.txt",
    "gradio_api/runs",
    "monitoring",
    "docs",
    "openapi.json",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_address_hands_out_a_file(client, place, path):
    secret = str(place / "secret.txt")
    shown = client.get(path.format(secret=secret, encoded=secret.replace("/", "%2f")))
    assert shown.status_code in (400, 403, 404)
    assert SECRET not in shown.text


@pytest.mark.parametrize("path", ["upload", "component_server", "process_recording", "vibe-edit"])
def test_uploads_and_side_doors_are_shut(client, path):
    files = {"files": ("a.txt", b"text")}
    assert client.post(f"gradio_api/{path}", files=files).status_code == 403
    assert client.post(f"gradio_api/{path}", json={}).status_code == 403


def test_nobody_goes_around_the_queue_which_is_bounded(client, facts):
    for path in ("run/predict", "api/predict", "run/0"):
        assert client.post(f"gradio_api/{path}", json={"data": []}).status_code == 403
    assert facts["max_size"] == 64 and facts["api_open"] is False
    assert facts["limits"] and None not in facts["limits"]


def test_a_request_that_is_too_long_is_refused(client):
    assert client.post("gradio_api/queue/join", content=b"x" * (1 << 21)).status_code == 413
    chunks = client.post("gradio_api/queue/join", content=iter([b"x"]))
    assert chunks.status_code == 411


@pytest.fixture
def elsewhere():
    """Another server, and the addresses that it was asked for."""
    asked = []

    class Told(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Told) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("depth", [0, 1, 40])
def test_no_value_makes_the_server_fetch_a_file(client, events, elsewhere, depth):
    address, asked = elsewhere
    value = {"path": f"{address}/large", "meta": {"_type": "gradio.FileData"}}
    for _ in range(depth):
        value = {"in": [value]}
    _, inputs = events["choose"]
    assert "Files are not taken" in ask(client, events["choose"], [value] * inputs)
    answer = client.post("gradio_api/call/anything", json={"data": [value]})
    assert answer.status_code == 403 and asked == []


@pytest.mark.parametrize("body", [b"{", b"\xff\xff", b"[" * 200_000])
def test_a_request_that_is_no_json_is_refused(client, body):
    assert client.post("gradio_api/queue/join", content=body).status_code == 400


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("[::1]:9", 200),
        ("evil.example", 403),
        ("evil.example:{port}", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost@evil.example", 403),
        ("10.0.0.1", 403),
        ("", 403),
    ],
)
def test_without_a_login_a_page_of_another_name_gets_nothing(client, facts, host, status):
    port = facts["address"].rstrip("/").rpartition(":")[2]
    headers = {"host": host.format(port=port)}
    for path in ("config", "t2i/app.js"):
        assert client.get(path, headers=headers).status_code == status
    joined = client.post("gradio_api/queue/join", json={"data": []}, headers=headers)
    assert (joined.status_code == 403) == (status == 403)


NAMES = [
    "../secret.txt",
    "..",
    "/etc/passwd",
    "%2e%2e%2fsecret.txt",
    "link",
    "one/../../secret.txt",
]


@pytest.mark.parametrize("name", NAMES)
def test_no_event_opens_a_run_outside_of_the_folder(client, events, name):
    for asked in ("choose", "film", "pick"):
        _, inputs = events[asked]
        answer = ask(client, events[asked], [name] * inputs, {"prompt": PROBE, "task": name})
        assert SECRET not in answer and "root:" not in answer
        assert '"kind": "group"' not in answer and '"frames"' not in answer
    answer = ask(client, events["save"], [], {"run": name, "kind": "csv"})
    assert SECRET not in answer and "mime" not in answer


def test_events_with_nonsense_are_answered_in_words(client, events):
    session = uuid.uuid4().hex[:10]
    ask(client, events["load"], [], session=session)  # as the page does first: which runs there are
    for data in ({"step": "x"}, {"step": -1e300}, {"group": {}}, {"place": [1]}, None, "text", [1]):
        answer = ask(client, events["save"], [], data)
        assert '"success":true' in answer and "no run is chosen" in answer
        answer = ask(client, events["choose"], ["one"], data, session)
        assert '"success":true' in answer and '"kind":"group"' in answer
        answer = ask(client, events["film"], ["one"], data, session)
        assert '"success":true' in answer and "No film" in answer


def test_prompts_leave_the_server_as_text_and_never_as_markup(client, events):
    assert "window.hacked" not in client.get("/").text
    answer = ask(client, events["save"], [], {"run": "script", "kind": "csv", "prompt": SCRIPT})
    assert "mime" in answer  # the file itself is base64
    assert "<script>" not in answer


def test_the_page_brings_its_own_scripts(client):
    for name in ("app.js", "plotly.js"):
        found = client.get(f"t2i/{name}")
        assert found.status_code == 200 and "javascript" in found.headers["content-type"]


def test_with_a_login_nothing_but_the_login_is_answered(place):
    with (
        served(place / "runs", login="me:a long password") as facts,
        httpx.Client(base_url=facts["address"], timeout=120) as stranger,
    ):
        assert stranger.get("config").status_code == 401
        joined = stranger.post("gradio_api/queue/join", json={"data": [], "fn_index": 0})
        assert joined.status_code == 401
        wrong = {"username": "me", "password": "a wrong password"}
        assert stranger.post("login", data=wrong).status_code == 400
        right = {**wrong, "password": "a long password"}
        assert stranger.post("login", data=right).status_code == 200
        assert stranger.get("config").status_code == 200
        # behind a proxy it has another name; a foreign page would come without the login's cookie
        assert stranger.get("config", headers={"host": "runs.example"}).status_code == 200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "{taken}"], "{taken} is in use"),
        (["--host", "0.0.0.0", "--port", "0"], "needs a login"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_exit_code_2(place, words, said):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "t2i_credit.cli", "app", str(place / "runs")]
        command += [word.format(taken=port) for word in words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and said.format(taken=port) in done.stderr


def test_the_app_beside_a_training_ends_with_it(tmp_path):
    def apps():
        return [one for one in psutil.Process().children() if str(tmp_path) in one.cmdline()]

    with app_beside(str(tmp_path), wanted=True):
        (app,) = apps()
    assert not app.is_running() and not apps()
    with app_beside(str(tmp_path), wanted=False):
        assert not apps()


def test_the_app_beside_a_training_that_was_killed_ends_by_itself(tmp_path):
    script = (
        "import os, sys, psutil\n"
        "from t2i_credit.app.server import app_beside\n"
        "with app_beside(sys.argv[1], wanted=True):\n"
        "    print(psutil.Process().children()[0].pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    training = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        app = psutil.Process(int(training.stdout.readline()))
        assert training.wait() == -9
        _, running = psutil.wait_procs([app], timeout=120)
        assert not [one for one in running if one.status() != psutil.STATUS_ZOMBIE]
    finally:
        training.stdout.close()
        with suppress(psutil.NoSuchProcess):
            app.kill()
