"""Chat templates of model folders: small programs that anybody may have written, so each is tried in a process of its own,
with little time and memory, before a prompt is put into it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError, one_line

SECONDS, MEMORY, LETTERS = 5, 512 << 20, 1 << 16  # that a template may take and write
PROMPT = "t2i credit prompt"  # stands where a prompt would

# transformers' settings of the library, without transformers, whose import takes longer than all else here
_CHILD = f"""
import json, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
    resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
except (ImportError, ValueError, OSError):
    pass  # not on this system; the parent still ends what takes too long
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
def refuse(message):
    raise ValueError(message)
made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
made.globals.update(raise_exception=refuse, strftime_now=lambda form: "2026-01-01")
made.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
asked = json.load(sys.stdin)
try:
    json.dump({{"text": made.from_string(asked["template"]).render(asked["given"])[:{LETTERS} + 1]}}, sys.stdout)
except MemoryError:
    json.dump({{"error": "takes too much memory"}}, sys.stdout)
except Exception as error:
    json.dump({{"error": str(error)[:300]}}, sys.stdout)
"""


def frame(path: Path, template: str, content: Any, tokens: Mapping[str, str]) -> tuple[str, str]:
    """What a chat template writes before and after one prompt of a user.

    Args:
        path: of the template, for messages.
        content: of the user's message, with `PROMPT` in the prompt's place.
        tokens: the tokenizer's special tokens, by name.

    Raises:
        ModelError: see `written`; or it does not write the prompt just once.
    """
    text = written(path, template, content, tokens)
    if text.count(PROMPT) != 1:
        raise ModelError(f"{path}: writes a prompt {text.count(PROMPT)} times; once is right")
    before, after = text.split(PROMPT)
    return before, after


def written(path: Path, template: str, content: Any, tokens: Mapping[str, str]) -> str:
    """What a chat template makes of one message of a user; see `frame`.

    Raises:
        ModelError: it fails, or takes more than `SECONDS`, `MEMORY` or `LETTERS`.
    """
    chat = [{"role": "user", "content": content}]
    given = {**tokens, "messages": chat, "add_generation_prompt": True}
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-c", _CHILD],
            input=json.dumps({"template": template, "given": given}),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=2 * SECONDS,
            check=False,
        )
        answer = json.loads(child.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        answer = {"error": "takes too long, or too much memory"}
    if "error" in answer:
        raise ModelError(f"{path}: {one_line(answer['error'])}")
    if len(answer["text"]) > LETTERS:
        raise ModelError(f"{path}: writes more than {LETTERS:,} letters around a prompt")
    if any(0xD800 <= ord(letter) < 0xE000 for letter in answer["text"]):
        raise ModelError(f"{path}: writes half a letter, which has no bytes")
    return str(answer["text"])
