"""Rewards to be served, and servers of them. Holds no test."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn
from torch import Tensor
from toys import bright

from t2i_credit import api
from t2i_credit.config.schema import parse_config
from t2i_credit.interfaces import Prompt
from t2i_credit.rewards.server import create_app, listen, server_of
from t2i_credit.rollout.images import from_uint8
from t2i_credit.worlds.shapes.grammar import prompt_set

MEAN = "remote_rewards:mean"

# `t2i_credit.rewards.remote` by its dotted name is the builder, which the package takes out of the module
CLIENT = importlib.import_module("t2i_credit.rewards.remote")


def mean(*, scale: float = 1.0) -> Any:
    """The mean of an image: a value that needs every bit of a float32."""
    return lambda images, prompts: scale * images.mean((1, 2, 3))


def unreliable() -> Any:
    """Fails as a bug would."""

    def reward(images: Tensor, prompts: list[Prompt]) -> Tensor:
        raise ZeroDivisionError("a bug")

    return reward


def mortal(*, marker: str, call: int = 3) -> Any:
    """`bright`, whose process is killed in the middle of a call, once in the life of the marker."""
    calls: list[int] = []

    def reward(images: Tensor, prompts: list[Prompt]) -> Tensor:
        calls.append(len(images))
        if len(calls) == call and not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return bright(above=0.5)(images, prompts)

    return reward


@contextmanager
def serving(
    sections: dict[str, Any], *, token: str | None = None, max_megabytes: float = 8
) -> Iterator[str]:
    """The address of a server of a reward, in a thread."""
    reward = api.build_reward(parse_config({"reward": sections}))
    app = create_app(reward, names=list(sections), token=token, max_megabytes=max_megabytes)
    with running(server_of(app), listen("127.0.0.1", 0, token=token)) as address:
        yield address


@contextmanager
def running(server: uvicorn.Server, listener: socket.socket) -> Iterator[str]:
    """The address of a server, in a thread."""
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)


def eight_bit(count: int = 5) -> Tensor:
    """Images (B, 3, 48, 40) whose values are whole levels of 255."""
    levels = torch.randint(0, 256, (count, 48, 40, 3), generator=torch.Generator().manual_seed(0))
    return from_uint8(list(levels.byte().numpy()))


PROMPTS = prompt_set("train", None)[:5]
