"""A reward that another process computes: the client of `t2i-credit serve-reward`. Scores nothing itself.

A server that is away is asked again, with growing pauses; one that answers nonsense is not.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import torch
from pydantic import Field
from torch import Tensor

from ..errors import ConfigError, TrainingError, one_line
from ..interfaces import Prompt
from .wire import (
    CheckAnswer,
    CheckRequest,
    M,
    Message,
    ScoreAnswer,
    ScoreRequest,
    WireError,
    pack_images,
    pack_prompts,
    parse,
    token_or_environment,
)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds; every pause is twice the one before
AWAY = (429, 502, 503, 504)  # answers of a server, or a proxy before it, that may do better later
PROMPTS_AT_ONCE = 1000  # checked in one request
MOST_BYTES = 16 << 20  # of an answer; one of 64 images has a few thousand
PATIENCE = 10  # an answer is whole after this many times `timeout`, or has failed


class RemoteReward:
    """Range: that of the served reward, whose weighted sum is this one's value; its parts are kept too.

    Attributes:
        url: of the server, without a path.
        token: or None.
        timeout: seconds without a byte after which a request has failed; ten times as many for all of an answer.
        retries: how often it is asked again.
        batch_size: images in a request.
    """

    def __init__(
        self, url: str, token: str | None, timeout: float, retries: int, batch_size: int
    ) -> None:
        self.url, self.timeout, self.retries = url, timeout, retries
        self.batch_size = batch_size
        # made once, because it reads all certificates; without TLS there is none to verify
        self.verify: Any = url.startswith("https:") and ssl.create_default_context()
        self.headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if token is not None:
            self.headers["Authorization"] = f"Bearer {token}"

    def check(self, prompts: Sequence[Prompt]) -> list[str]:
        """Lines about what the server's rewards do not read of the prompts.

        Raises:
            TrainingError: the server is away, or cannot judge one of them.
        """
        lines: list[str] = []
        distinct = list({p.text + repr(p.spec): p for p in prompts}.values())
        with self._client() as client:
            for first in range(0, len(distinct), PROMPTS_AT_ONCE):
                part = distinct[first : first + PROMPTS_AT_ONCE]
                body = self._ask(client, "/check", CheckRequest(prompts=pack_prompts(part)))
                lines += self._parsed(CheckAnswer, body).lines
        return list(dict.fromkeys(lines))

    def __call__(
        self, images: Tensor, prompts: Sequence[Prompt]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with self._client() as client:
            answers = list(self._scores(client, images, prompts))
        names = answers[0].parts.keys()
        if any(answer.parts.keys() != names for answer in answers):
            raise TrainingError(f"reward remote: {self.url}: other parts in every answer")
        total = torch.tensor([value for answer in answers for value in answer.total])
        parts = {
            name: torch.tensor([value for answer in answers for value in answer.parts[name]])
            for name in names
        }
        return total, parts

    def _scores(
        self, client: httpx.Client, images: Tensor, prompts: Sequence[Prompt]
    ) -> Iterator[ScoreAnswer]:
        """The answers for one batch of images after the other."""
        for first in range(0, len(prompts), self.batch_size):
            part = slice(first, first + self.batch_size)
            packed = pack_images(images[part])
            question = ScoreRequest(prompts=pack_prompts(prompts[part]), images=packed)
            body = self._ask(client, "/score", question)
            answer = self._parsed(ScoreAnswer, body)
            for name, values in {"total": answer.total, **answer.parts}.items():
                if len(values) != len(packed):
                    raise TrainingError(
                        f"reward remote: {self.url}: {name} has {len(values)} values for {len(packed)} images"
                    )
            yield answer

    def _parsed(self, kind: type[M], body: bytes) -> M:
        """The message in a body.

        Raises:
            TrainingError: it is something else.
        """
        try:
            return parse(kind, body)
        except WireError as error:
            shown = one_line(body[:60].decode("utf-8", "replace"))
            raise TrainingError(f"reward remote: {self.url}: {error}; it said {shown!r}") from None

    def _client(self) -> httpx.Client:
        """Connections to the server alone: proxies named in the environment are not used."""
        return httpx.Client(
            headers=self.headers, timeout=self.timeout, verify=self.verify, trust_env=False
        )

    def _ask(self, client: httpx.Client, path: str, question: Message) -> bytes:
        """The body of the answer to a question.

        Raises:
            TrainingError: the server stays away, or refuses.
        """
        body, reason, began = question.model_dump_json(), "", time.monotonic()
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE))
            try:
                status, answer = self._in_time(client, self.url + path, body)
            except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError) as error:
                reason = one_line(error) or type(error).__name__
                continue
            if status == 200:
                return answer
            reason = f"status {status}: {_told(answer)}"
            if 300 <= status < 400:
                reason = f"status {status}: it sends elsewhere; give that address as url"
            if status not in AWAY:
                hint = "; lower batch_size" if status == 413 else ""
                raise TrainingError(f"reward remote: {self.url}: {reason}{hint}")
        raise TrainingError(
            f"reward remote: {self.url} stays away ({reason}; asked {self.retries + 1} times in "
            f"{time.monotonic() - began:.0f} s); start it with t2i-credit serve-reward"
        )

    def _in_time(self, client: httpx.Client, url: str, body: str) -> tuple[int, bytes]:
        """Status and body of an answer, which must come whole, in time, and be no larger than one of ours.

        Raises:
            OSError: it does not.
        """
        limit, found = PATIENCE * self.timeout, Future[tuple[int, bytes]]()

        def ask() -> None:
            try:
                found.set_result(_post(client, url, body))
            except Exception as error:
                found.set_exception(error)

        # httpx has limits for every byte and none for all of them; a thread that is left behind keeps no program alive
        threading.Thread(target=ask, daemon=True).start()
        try:
            return found.result(limit)
        except FutureTimeout:
            raise TimeoutError(f"no whole answer in {limit:g} s") from None


def _post(client: httpx.Client, url: str, body: str) -> tuple[int, bytes]:
    with client.stream("POST", url, content=body) as answer:
        if (coding := answer.headers.get("content-encoding", "identity")) != "identity":
            raise OSError(f"an answer in {coding!r:.40}, which was not asked for")
        found = bytearray()
        for part in answer.iter_raw():
            found += part
            if len(found) > MOST_BYTES:
                raise OSError(f"an answer of more than {MOST_BYTES >> 20} MiB")
        return answer.status_code, bytes(found)


def _told(answer: bytes) -> str:
    """What an answer that is no score says, in one line."""
    text = answer[:4096].decode("utf-8", "replace")
    try:
        said: Any = json.loads(answer)["error"]
    except (ValueError, TypeError, KeyError, RecursionError):
        said = text
    return one_line(said)[:200]


def remote(
    *,
    url: str,
    token: str | None = None,
    timeout: Annotated[float, Field(gt=0)] = 60.0,
    retries: Annotated[int, Field(ge=0, le=30)] = 8,
    batch_size: Annotated[int, Field(ge=1)] = 64,
) -> RemoteReward:
    """Builds the client of a reward server.

    Args:
        url: such as http://127.0.0.1:8765.
        token: what the server was started with; None = $T2I_CREDIT_REWARD_TOKEN. It is written to the run folder, like
            all of the configuration: the variable is not.
        timeout: seconds without a byte after which a request has failed; ten times as many for all of an answer.
        retries: how often a server that is away is asked again, after 0.5, 1, 2, ... 30 s; 8 are a minute and a half.
        batch_size: images in a request.
    """
    problem = f"reward.remote.url: {url!r} is not allowed; http://HOST:PORT is"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise ConfigError(problem) from None
    if not usable or parts.query or parts.fragment or not url.isprintable():
        raise ConfigError(problem)
    token = token_or_environment(token, "reward.remote.token")
    return RemoteReward(url.rstrip("/"), token, timeout, retries, batch_size)
