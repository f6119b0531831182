"""Where a CLIP model comes from: what a configuration's words mean to open_clip, and one line for what is missing.

Builds no model.
"""

from __future__ import annotations

import difflib
import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from ..errors import ModelError

EMBEDDED = Path(__file__).parent / "embedded" / "shapes"
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
OFFLINE = "; without a network, name a file or folder that was downloaded before"
HUB, LOCAL = "hf-hub:", "local-dir:"  # what open_clip's names may begin with


def open_clip_source(model: str, pretrained: str | None, reward: str) -> tuple[str, str | None]:
    """What open_clip calls the model, and the tag or file of its weights."""
    import open_clip

    if model in open_clip.list_models():
        return model, _weights(model, pretrained, reward)
    if pretrained is not None:
        raise ModelError(
            f"{reward}: pretrained: {pretrained!r} goes with an open_clip architecture, and model {model!r} is none"
            + _nearest(model, open_clip.list_models())
        )
    if model == "embedded":
        folder, lack = EMBEDDED / "clip", "make it with t2i-credit pretrain shapes"
    elif model.startswith(HUB):
        return model, None
    elif model.startswith(LOCAL) or Path(model).is_dir():
        folder, lack = Path(model.removeprefix(LOCAL)), "such a folder has the config too"
    elif model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return HUB + model, None
    else:
        raise ModelError(
            f"{reward}: model: {model!r} is not known{_nearest(model, open_clip.list_models())} (allowed: embedded, "
            "an open_clip architecture, a hub id such as laion/CLIP-ViT-B-32-laion2B-s34B-b79K, a folder)"
        )
    for file in (CONFIG, WEIGHTS):
        others = file == WEIGHTS and any(folder.glob("*.bin"))  # as older hub folders have them
        if not (folder / file).is_file() and not others:
            raise ModelError(f"{reward}: {folder / file}: missing; {lack}")
    return f"{LOCAL}{folder.resolve()}", None


def _weights(model: str, pretrained: str | None, reward: str) -> str:
    """The tag or the file of an architecture's weights."""
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(model)
    listed = f"a tag ({', '.join(tags)}) or a weights file" if tags else "a weights file"
    if pretrained is None:
        raise ModelError(f"{reward}: pretrained: missing; model {model} needs {listed}")
    if pretrained in tags:
        return pretrained
    if not Path(pretrained).is_file():
        raise ModelError(
            f"{reward}: pretrained: {pretrained!r} is no file; model {model} needs {listed}"
        )
    return str(Path(pretrained).resolve())


def to_device(device: str | None, reward: str) -> torch.device:
    """The device of that name; None = a GPU if there is one."""
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{reward}: device: {device!r} cannot be used: {reason}") from None
    return found


@contextmanager
def one_line_errors(reward: str, what: str, hint: str = "") -> Iterator[None]:
    """Whatever libraries raise about missing, foreign or damaged weights becomes a ModelError of one line, and what
    they log about it is not shown."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        pickle.UnpicklingError,
        SafetensorError,
    ) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"{reward}: {what}: cannot be loaded: {reason}{hint}") from error
    finally:
        logging.disable(before)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
