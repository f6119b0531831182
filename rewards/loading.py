"""What every reward that loads weights shares: its device, and one line for what libraries say against files. Loads nothing."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from ..errors import ModelError, UserError, one_line

OFFLINE = "; without a network, name a file or folder that was downloaded before"


def to_device(device: str | None, reward: str) -> torch.device:
    """The device of that name; None = a GPU if there is one."""
    try:
        found = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = one_line(error)
        raise ModelError(f"{reward}: device: {device!r} cannot be used: {reason}") from None
    return found


@contextmanager
def one_line_errors(reward: str, what: str, hint: str = "") -> Iterator[None]:
    """Whatever libraries raise about missing, foreign or damaged weights becomes a ModelError of one line, and what
    they log about it is not shown. Python code that comes with weights is never run."""
    from transformers import dynamic_module_utils

    # open_clip does not say that a model's own Python code is not to be run: then nobody is asked, and it is refused
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    except UserError as error:
        raise ModelError(f"{reward}: {error}") from None
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
        reason = one_line(error)[:300] or type(error).__name__
        raise ModelError(f"{reward}: {what}: cannot be loaded: {reason}{hint}") from error
    finally:
        logging.disable(before)
