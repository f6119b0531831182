"""A reward behind HTTP: the same values bit for bit, what the client refuses, and a server that is killed."""

from __future__ import annotations

import math
import multiprocessing
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from remote_rewards import CLIENT, MEAN, PROMPTS, eight_bit, serving
from toys import command_line, recipe

from t2i_credit import api
from t2i_credit.config.schema import parse_config
from t2i_credit.errors import ConfigError, TrainingError
from t2i_credit.interfaces import Prompt
from t2i_credit.rewards.remote import remote
from t2i_credit.rewards.server import listen
from t2i_credit.rewards.wire import TOKEN_VARIABLE, pack_prompts, unpack_prompts
from t2i_credit.rollout.images import from_uint8, to_uint8
from t2i_credit.run_folder.reader import RunReader
from t2i_credit.yaml_text import write_yaml


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses between retries, and no token from outside."""
    monkeypatch.setattr(CLIENT, "FIRST_PAUSE", 0.01)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


@contextmanager
def answering(status: int, body: bytes, kind: str = "application/json") -> Iterator[str]:
    """The address of a server that says the same to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# The same values --------------------------------------------------------------------------------------------------


def test_rewards_through_the_server_are_the_local_ones_bit_for_bit() -> None:
    sections = {"geneval": {"partial": True, "weight": 0.7}, MEAN: {"scale": 0.3}}
    local = api.build_reward(parse_config({"reward": sections}))
    images = eight_bit()
    with serving(sections) as url:
        far = api.build_reward(parse_config({"reward": {"remote": {"url": url, "batch_size": 2}}}))
        far.check(PROMPTS)
        total, parts = far(images, PROMPTS)
    expected, expected_parts = local(images, PROMPTS)
    assert total.dtype == torch.float32 and len(set(total.tolist())) == 5
    assert torch.equal(total, expected) and torch.equal(parts["remote"], expected)
    assert parts.keys() == {"remote", *(f"remote/{name}" for name in expected_parts)}
    for name, values in expected_parts.items():
        assert torch.equal(parts[f"remote/{name}"], values)


def test_images_are_rounded_to_8_bits_on_the_way() -> None:
    images = torch.rand(3, 3, 8, 12)
    with serving({MEAN: {}}) as url:
        total, _ = remote(url=url)(images, PROMPTS[:3])
    rounded = from_uint8(list(to_uint8(images))).mean((1, 2, 3))
    assert torch.equal(total, rounded) and not torch.equal(total, images.mean((1, 2, 3)))


def test_prompts_arrive_with_their_negatives_and_records_but_not_their_files() -> None:
    sent = [
        Prompt(
            "a red circle", negative="", spec=dict(PROMPTS[0].spec or {}), reference="secret.png"
        ),
        Prompt("ein grüner Kreis \U0001f7e2", negative=None),
    ]
    assert unpack_prompts(pack_prompts(sent)) == [
        Prompt("a red circle", negative="", spec=PROMPTS[0].spec),
        Prompt("ein grüner Kreis \U0001f7e2"),
    ]


# What the client refuses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"total": [1.0], "parts": {}}', "total has 1 values for 2 images"),
        (b'{"total": [1, 2], "parts": {"a": [1.0]}}', "a has 1 values for 2 images"),
        (b'{"total": [1.0, NaN], "parts": {}}', "total.1: .*NaN|total.1: .*finite"),
        (b'{"total": [1.0, null], "parts": {}}', "total.1: .*must be a number"),
        (b'{"total": [1.0, "2"], "parts": {}}', "total.1: .*must be a number"),
        (b'{"total": [1.0, true], "parts": {}}', "total.1: .*must be a number"),
        (b'{"total": [1.0, 1e999], "parts": {}}', "total.1: .*finite"),
        (b'{"parts": {}}', "total: "),
        (b"[1.0, 2.0]", "not a ScoreAnswer"),
        (b"<html><body>Welcome</body></html>", "not a ScoreAnswer.*<html><body>Welcome"),
        (b"\x80\x04pickle", "not a ScoreAnswer"),
    ],
)
def test_an_answer_that_is_nonsense_stops_the_run_in_one_line(body: bytes, problem: str) -> None:
    with (
        answering(200, body) as url,
        pytest.raises(TrainingError, match=f"reward remote: {url}: .*({problem})") as caught,
    ):
        remote(url=url)(eight_bit(2), PROMPTS[:2])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_page_that_is_no_reward_server_is_told_with_its_status() -> None:
    with (
        answering(404, b"<html>\n<h1>Not here</h1>", "text/html") as url,
        pytest.raises(TrainingError, match=r"status 404: <html> <h1>Not here</h1>$"),
    ):
        remote(url=url)(eight_bit(1), PROMPTS[:1])


def test_a_server_that_stays_away_ends_the_run_after_growing_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(CLIENT, "FIRST_PAUSE", 0.5)
    monkeypatch.setattr(CLIENT.time, "sleep", pauses.append)
    with listen("127.0.0.1", 0, token=None) as free:
        port = free.getsockname()[1]
    with pytest.raises(TrainingError, match=f"127.0.0.1:{port} stays away .*asked 9 times"):
        remote(url=f"http://127.0.0.1:{port}")(eight_bit(1), PROMPTS[:1])
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
    with (
        answering(503, b"busy") as url,
        pytest.raises(TrainingError, match=r"status 503: busy.*2 ti"),
    ):
        remote(url=url, retries=1)(eight_bit(1), PROMPTS[:1])


def test_a_server_that_says_nothing_is_given_up_after_the_timeout() -> None:
    with listen("127.0.0.1", 0, token=None) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TrainingError, match=r"stays away .timed out; asked 2 times"):
            remote(url=url, timeout=0.05, retries=1)(eight_bit(1), PROMPTS[:1])


@pytest.mark.parametrize(
    "url", ["127.0.0.1:80", "ftp://a", "http://", "http://a?b=c", "http://[", "http://a:x", ""]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"reward\.remote\.url"):
        remote(url=url)


def test_the_address_is_required() -> None:
    with pytest.raises(ConfigError, match=r"reward\.remote\.url: is missing"):
        api.build_reward(parse_config({"reward": {"remote": {}}}))


# A server that is killed ------------------------------------------------------------------------------------------


def test_a_run_whose_server_is_killed_and_restarted_is_the_undisturbed_one(tmp_path: Path) -> None:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs a fork server")
    context: Any = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["t2i_credit.training.trainer", "t2i_credit.models.embedded_model"]
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    marker = tmp_path / "killed"
    served = {"reward": {"remote_rewards:mortal": {"marker": str(marker)}}}
    (tmp_path / "served.yaml").write_text(write_yaml(served))
    arguments = ["serve-reward", str(tmp_path / "served.yaml"), "--port", str(port)]
    log = tmp_path / "server.log"

    def start() -> Any:
        process = context.Process(target=command_line, args=(arguments, log), daemon=True)
        process.start()
        return process

    processes = [start()]

    def restart() -> None:
        processes[0].join()
        processes.append(start())

    section = {"remote": {"url": f"http://127.0.0.1:{port}", "retries": 30}}
    train = {"steps": 4, "checkpoint_every": 4}
    keeper = threading.Thread(target=restart)
    keeper.start()
    try:
        killed = api.train(recipe(tmp_path, reward=section, train={**train, "name": "killed"}))
        keeper.join()
        assert marker.exists() and processes[0].exitcode == -signal.SIGKILL, log.read_text()
        whole = api.train(recipe(tmp_path, reward=section, train={**train, "name": "whole"}))
        assert processes[1].is_alive(), log.read_text()
    finally:
        for process in processes:
            process.kill()
            process.join()
    found, expected = (
        [
            {k: v for k, v in line.items() if not k.startswith("time")}
            for line in RunReader(path).metrics()
        ]
        for path in (killed, whole)
    )
    assert len(found) == 4 and found == expected
    assert len({line["reward"] for line in found}) > 1
    assert all(line["reward"] == line["reward/remote/remote_rewards:mortal"] for line in found)
    assert not any(math.isnan(line["reward"]) for line in found)
