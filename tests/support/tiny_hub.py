"""A Hugging Face hub on this machine that takes an upload, and breaks off a download. Holds no test."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

COMMIT = "0" * 40


class TinyHub(ThreadingHTTPServer):
    """Takes the repository someone/model and commits to it; of someone/broken only half of config.json comes.

    Attributes:
        created: what the requests for a repository asked for.
        files: path to content, of what was committed.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}


class Answers(BaseHTTPRequestHandler):
    """The requests that huggingface_hub makes of a hub."""

    server: TinyHub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        lines = [json.loads(line) for line in body.splitlines()]
        if self.path == "/api/repos/create":
            self.server.created += lines
            return self.answer({"url": f"{self.server.address}/someone/model"})
        if self.path == "/api/models/someone/model/preupload/main":
            plain = {"uploadMode": "regular", "shouldIgnore": False}
            return self.answer({"files": [{"path": f["path"]} | plain for f in lines[0]["files"]]})
        if self.path == "/api/models/someone/model/commit/main":
            for line in lines[1:]:  # the first one is the message
                value = line["value"]
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            url = f"{self.server.address}/someone/model/commit/1"
            return self.answer({"commitUrl": url, "commitOid": "1"})
        assert self.path == "/api/validate-yaml", self.path
        return self.answer({"errors": [], "warnings": []})

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/someone/broken/tree/"):
            return self.answer([{"type": "file", "path": "config.json", "size": 2, "oid": "1"}])
        if self.path.startswith("/api/models/someone/broken"):
            return self.answer({"id": "someone/broken", "sha": COMMIT})
        if self.path.endswith("/config.json"):
            self.close_connection = True
            return self.answer({}, length=4)
        return self.answer({}, 404)

    def do_HEAD(self) -> None:
        self.answer({})

    def answer(self, value: Any, status: int = 200, length: int | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("ETag", '"1"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(length or len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextmanager
def tiny_hub(patch: pytest.MonkeyPatch) -> Iterator[TinyHub]:
    """The hub that huggingface_hub finds until the patch is undone; gone when the context is left."""
    from huggingface_hub import constants

    hub = TinyHub()
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "ENDPOINT", hub.address)
    files = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
