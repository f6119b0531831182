"""What a reward server and its client say to each other: JSON, with images as PNG. Sends nothing, scores nothing.

A request is {"prompts": [{"text", "negative", "spec"}, ...], "images": [PNG in base64, ...]}, an answer
{"total": [...], "parts": {name: [...]}}. Pixels are 8-bit, so images are rounded to 1/255 on the way; rewards are
float32 values written out in full, so they arrive bit for bit. References of prompts stay at home: they are files.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError
from torch import Tensor

from ..config.messages import explain
from ..errors import ConfigError, UserError, one_line
from ..interfaces import Prompt
from ..prompts.records import validate_spec
from ..rollout.images import UNREADABLE, from_uint8, require_rows, to_uint8

TOKEN_VARIABLE = "T2I_CREDIT_REWARD_TOKEN"


def token_or_environment(token: str | None, where: str) -> str | None:
    """The token that was given, or that of the environment, or None.

    Raises:
        ConfigError: it cannot stand in a header.
    """
    token = token or os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and not (
        token.isascii() and token.isprintable() and token.strip() == token
    ):
        raise ConfigError(f"{where}: must be printable ASCII without spaces around it")
    return token


class Message(BaseModel):
    """JSON of exactly these keys and types."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


M = TypeVar("M", bound=Message)


class PromptMessage(Message):
    """A prompt; see `interfaces.Prompt`."""

    text: str
    negative: str | None = None
    spec: dict[str, Any] | None = None


class CheckRequest(Message):
    """Can these be judged?"""

    prompts: list[PromptMessage]


class CheckAnswer(Message):
    """Yes, all of them; with lines about what is not read of them."""

    prompts: int
    lines: list[str] = []


class ScoreRequest(Message):
    """B prompts and B images, all of one size."""

    prompts: list[PromptMessage]
    images: list[str]


class ScoreAnswer(Message):
    """The weighted sum (B), and its parts before weighting, (B) each."""

    total: list[FiniteFloat]
    parts: dict[str, list[FiniteFloat]]


class WireError(UserError):
    """A message is not what was agreed."""


class WireSizeError(WireError):
    """A message unpacks to more than is allowed."""


def parse(kind: type[M], body: bytes) -> M:
    """A message from its JSON.

    Raises:
        WireError: it is no JSON, or has other keys or types.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(str(part) for part in detail["loc"])
        problem = f"{place}: {explain(detail)}" if place else one_line(detail["msg"])
        raise WireError(f"not a {kind.__name__}: {problem}") from None


def pack_prompts(prompts: Sequence[Prompt]) -> list[PromptMessage]:
    """Prompts as they are sent."""
    return [
        PromptMessage(text=p.text, negative=p.negative, spec=dict(p.spec) if p.spec else None)
        for p in prompts
    ]


def unpack_prompts(messages: Sequence[PromptMessage]) -> list[Prompt]:
    """Prompts as they arrived.

    Raises:
        PromptError: a spec is no GenEval record.
    """
    for number, message in enumerate(messages):
        if message.spec is not None:
            validate_spec(message.spec, where=f"prompts[{number}].spec")
    return [Prompt(m.text, negative=m.negative, spec=m.spec) for m in messages]


def pack_images(images: Tensor) -> list[str]:
    """(B, 3, h, w) in [0, 1] as B PNGs in base64."""
    packed = []
    for pixels in to_uint8(images):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)
        packed.append(base64.b64encode(file.getvalue()).decode("ascii"))
    return packed


def unpack_images(messages: Sequence[str], *, max_bytes: int) -> Tensor:
    """B PNGs in base64 to (B, 3, h, w) float32 in [0, 1].

    Raises:
        WireError: one is no RGB PNG, sizes differ, or (WireSizeError) all take more than `max_bytes`.
    """
    found: list[np.ndarray] = []
    room = max_bytes
    for number, message in enumerate(messages):
        where = f"images[{number}]"
        try:
            # nothing but PNG is tried, and the size is known before a pixel is unpacked
            opened = io.BytesIO(base64.b64decode(message, validate=True))
            file = Image.open(opened, formats=["PNG"])
            room -= 3 * file.width * file.height
            if room < 0:
                problem = f"{where}: the images unpack to more than {max_bytes} bytes"
                raise WireSizeError(f"{problem}; send fewer at once")
            opened.seek(0)
            require_rows(opened)
            file.load()
        except UserError:
            raise
        except (
            *UNREADABLE,
            binascii.Error,
        ) as error:  # ValueError: text or a profile that is too long
            why = "no picture" if isinstance(error, UnidentifiedImageError) else one_line(error)
            raise WireError(f"{where}: not a PNG in base64 ({why[:80]})") from None
        if file.mode != "RGB":
            raise WireError(f"{where}: mode {file.mode} is not allowed; RGB")
        found.append(np.asarray(file))
        if found[-1].shape != found[0].shape:
            raise WireError(f"{where}: {file.width} x {file.height} pixels; all must have one size")
    return from_uint8(found)
