"""What every test runs under: no network, one thread. Holds no toys and no test."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from repository import ROOT

pytest_plugins = ["library_warnings"]
# their assertions tell what was compared, as those of the tests do
pytest.register_assert_rewrite(
    "config_files", "prompt_refusals", "scripted_texts", "training_runs", "updates"
)


# What libraries read when they are imported, which the conftest.py of a folder below may do; child processes inherit it.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    GRADIO_ANALYTICS_ENABLED="False",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests marked `gpu`, `weights` or `newest` where what they need is missing."""
    if item.get_closest_marker("newest") and not item.config.getoption("newest"):
        pytest.skip("needs the package index: make newest")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")
    if marker := item.get_closest_marker("weights"):
        names = marker.args or ("models/embedded",)
        if missing := [name for name in names if not _has_weights(name)]:
            pytest.skip(f"needs the weights {', '.join(missing)}")


def _has_weights(name: str) -> bool:
    """Whether `name` is a folder (of the repository, or any) with weights, or a cached hub id."""
    if (ROOT / name).is_dir():
        return any((ROOT / name).rglob("*.safetensors"))
    from huggingface_hub import try_to_load_from_cache

    return name.count("/") == 1 and isinstance(try_to_load_from_cache(name, "config.json"), str)


def _refuse_remote(host: object) -> None:
    """Raises RuntimeError unless `host` is this machine; libraries would swallow an OSError."""
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost", socket.gethostname()):
        return
    try:
        address = ipaddress.ip_address(str(name).split("%")[0])
    except ValueError:
        address = None
    if address is None or not (address.is_loopback or address.is_unspecified):
        raise RuntimeError(f"a test tried to reach {name!r}: tests use no network")


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Lets sockets reach this machine only."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex
    getaddrinfo = socket.getaddrinfo

    def guarded(call: Any) -> Any:
        def guard(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                _refuse_remote(address[0])
            return call(self, address)

        return guard

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_remote(host)
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded(connect))
        patch.setattr(socket.socket, "connect_ex", guarded(connect_ex))
        patch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Keeps parallel test processes from fighting for cores, and sums in one order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_precision_of_an_earlier_test() -> None:
    """Accelerate keeps the first accelerator's precision for the whole process: a test in bfloat16 would round others."""
    if state := sys.modules.get("accelerate.state"):
        state.AcceleratorState._reset_state()


@pytest.fixture(scope="session")
def geneval_records() -> list[dict[str, Any]]:
    """The official GenEval records, from the JSON lines file that $GENEVAL_METADATA names."""
    path = os.environ.get("GENEVAL_METADATA")
    if not path:
        pytest.skip("GENEVAL_METADATA does not name the official prompt list")
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]
