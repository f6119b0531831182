"""What the server of a reward refuses, and whom it answers."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import httpx
import pytest
import torch
from remote_rewards import CLIENT, MEAN, PROMPTS, eight_bit, serving

from t2i_credit.errors import ConfigError, TrainingError, UserError
from t2i_credit.interfaces import Prompt
from t2i_credit.rewards.remote import remote
from t2i_credit.rewards.server import listen
from t2i_credit.rewards.wire import TOKEN_VARIABLE, pack_images
from t2i_credit.rollout.images import from_uint8


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses between retries, and no token from outside."""
    monkeypatch.setattr(CLIENT, "FIRST_PAUSE", 0.01)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


def asked(url: str, path: str = "/score", **kwargs: Any) -> tuple[int, str]:
    answer = httpx.post(url + path, trust_env=False, **kwargs)
    return answer.status_code, answer.json()["error"]


def question(images: list[str], prompts: int | None = None) -> dict[str, Any]:
    count = len(images) if prompts is None else prompts
    return {"prompts": [{"text": "a red circle"}] * count, "images": images}


def test_a_server_refuses_what_is_no_request() -> None:
    packed = pack_images(eight_bit(2))
    small = pack_images(torch.zeros(1, 3, 8, 8))
    gif = "R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs="  # one pixel
    cases: list[tuple[int, str, dict[str, Any]]] = [
        (422, "2 images for 1 prompts", {"json": question(packed, 1)}),
        (422, "0 images for 0 prompts", {"json": question([])}),
        (422, "all must have one size", {"json": question(packed + small)}),
        (422, "images[1]: not a PNG", {"json": question([packed[0], "bm90IGEgcG5n"])}),
        (422, "images[0]: not a PNG", {"json": question(["%%%"])}),
        (422, "images[0]: not a PNG", {"json": question([gif])}),
        (422, "images[0]: not a PNG", {"json": question([packed[0][:400]])}),
        (
            422,
            "prompts.0.reference",
            {"json": {"prompts": [{"text": "a", "reference": "/etc"}], "images": packed}},
        ),
        (422, "prompts.0.text", {"json": {"prompts": [{"text": 3}], "images": packed[:1]}}),
        (
            422,
            "not a ScoreRequest",
            {"content": b"{", "headers": {"Content-Type": "application/json"}},
        ),
        (
            415,
            "text/plain is not allowed",
            {"content": b"{}", "headers": {"Content-Type": "text/plain"}},
        ),
        (413, "larger than 1048576 bytes", {"json": question(["A" * 2**20])}),
    ]
    with serving({MEAN: {}}, max_megabytes=1) as url:
        for status, problem, request in cases:
            found, said = asked(url, **request)
            assert (found, problem in said) == (status, True), (status, problem, found, said)
        body = json.dumps(question(["A" * 2**20])).encode()
        pieces = (body[i : i + 65536] for i in range(0, len(body), 65536))  # no length is told
        kind = {"Content-Type": "application/json"}
        assert asked(url, content=pieces, headers=kind)[0] == 413
        bomb = pack_images(torch.zeros(1, 3, 600, 600))  # 1.08 MB of zeros in 2 kB
        assert len(bomb[0]) < 10_000
        status, said = asked(url, json=question(bomb))
        assert (status, "unpack to more than 1048576 bytes" in said) == (413, True)


def test_who_leaves_in_the_middle_of_a_request_leaves_no_traceback(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with serving({MEAN: {}}) as url:
        place = url.removeprefix("http://")
        host, _, port = place.partition(":")
        head = f"POST /score HTTP/1.1\r\nHost: {place}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port))) as visitor:
            visitor.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            time.sleep(0.5)
        time.sleep(0.5)
        assert httpx.get(f"{url}/health", trust_env=False).status_code == 200
    told = capfd.readouterr()
    assert "Traceback" not in told.out + told.err + caplog.text
    assert "ClientDisconnect" not in told.out + told.err + caplog.text


def test_a_server_with_a_token_answers_only_who_knows_it() -> None:
    with serving({MEAN: {}}, token="sesame") as url:
        for headers in ({}, {"Authorization": "Bearer sesam"}, {"Authorization": "sesame"}):
            assert httpx.get(f"{url}/health", headers=headers, trust_env=False).status_code == 401
        right = {"Authorization": "Bearer sesame"}
        health = httpx.get(f"{url}/health", headers=right, trust_env=False).json()
        assert health == {"rewards": [MEAN], "max_megabytes": 8}
        total, _ = remote(url=url, token="sesame")(eight_bit(2), PROMPTS[:2])
        assert len(total) == 2
        with pytest.raises(TrainingError, match="status 401: the token is missing or wrong"):
            remote(url=url)(eight_bit(2), PROMPTS[:2])


def test_the_token_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "sesame")
    assert remote(url="http://a:1").headers["Authorization"] == "Bearer sesame"
    with pytest.raises(ConfigError, match=r"reward\.remote\.token: must be printable ASCII"):
        remote(url="http://a:1", token="sésame")


def test_only_a_server_with_a_token_listens_to_other_machines() -> None:
    with pytest.raises(UserError, match=r"--host: 0\.0\.0\.0 can be reached by others"):
        listen("0.0.0.0", 0, token=None)
    with listen("127.0.0.1", 0, token=None) as one:
        port = one.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{port}"):
            listen("127.0.0.1", port, token=None)


def test_prompts_that_the_served_reward_cannot_judge_are_refused_before_training() -> None:
    with serving({"geneval": {}}) as url:
        far = remote(url=url)
        far.check(PROMPTS)
        with pytest.raises(TrainingError, match="status 422: prompt 'a teapot': no spec"):
            far.check([*PROMPTS, Prompt("a teapot")])
        bad = Prompt("a", spec={"tag": "x", "include": [{"class": "circle"}]})
        with pytest.raises(TrainingError, match=r"prompts\[0\]\.spec: include\[0\]: key 'count'"):
            far.check([bad])


def test_the_client_is_told_what_the_served_reward_does_not_read() -> None:
    with serving({"clip": {}}) as url:
        far = remote(url=url)
        assert far.check(PROMPTS) == []
        (line,) = far.check([*PROMPTS, Prompt("a red circle " * 20)])
        assert line.startswith("reward clip (") and "reads 24 tokens of a prompt" in line


def test_a_bug_in_the_served_reward_stops_the_client_at_once() -> None:
    with (
        serving({"remote_rewards:unreliable": {}}) as url,
        pytest.raises(
            TrainingError,
            match="status 422: reward remote_rewards:unreliable: raised ZeroDivisionError: a bug",
        ),
    ):
        remote(url=url)(eight_bit(2), PROMPTS[:2])


def test_a_batch_that_is_too_large_is_told_with_what_to_do() -> None:
    noise = from_uint8([torch.randint(0, 256, (512, 512, 3)).byte().numpy()] * 2)
    with (
        serving({MEAN: {}}, max_megabytes=1) as url,
        pytest.raises(TrainingError, match=r"status 413: .*lower batch_size"),
    ):
        remote(url=url)(noise, PROMPTS[:2])
