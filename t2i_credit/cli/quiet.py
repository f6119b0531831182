"""A quiet console: what libraries say about themselves is shown only when it is asked for. Hides no error, and no warning
of this project or of a user's own module."""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
import warnings
from pathlib import Path
from typing import TextIO

from ..errors import T2ICreditWarning

VERBOSE_VARIABLE = "T2I_CREDIT_VERBOSE"

# What libraries read when they are imported; a variable that somebody has set stays as it is.
_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",  # a hub out of reach is one line, not one a retry
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers' bars, too; downloads have a bar of ours
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "GRPC_VERBOSITY": "ERROR",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
# Whose warnings are shown: such as a driver that is too old, without which nobody knows why the CPU is used.
_GPU = "/torch/cuda/"
# Where a source tree keeps what is installed inside the package.
_BESIDE = ("models", "rewards", "app")


def quiet_libraries() -> None:
    """Leaves out warnings and log lines of libraries, in this process and those that it starts, unless
    $T2I_CREDIT_VERBOSE says otherwise. To be called before they are imported."""
    if os.environ.get(VERBOSE_VARIABLE, "").lower() not in ("", "0", "false", "no"):
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    told = logging.StreamHandler()
    told.addFilter(_is_told)
    logging.basicConfig(handlers=[told])  # without a handler Python prints every warning
    warnings.showwarning = _show


def _is_told(record: logging.LogRecord) -> bool:
    """Whether a log line is an error, or ours."""
    return record.levelno >= logging.ERROR or record.name.partition(".")[0] == "t2i_credit"


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning of ours, or of torch about the GPU, as one line; one of a user's module as Python shows it; others not."""
    if issubclass(category, T2ICreditWarning) or _GPU in Path(filename).as_posix():
        if os.environ.get("RANK", "0") != "0":  # of several processes the first one speaks
            return
        print(f"warning: {message}", file=file or sys.stderr)
    elif not _is_library(filename):
        shown = warnings.formatwarning(message, category, filename, lineno, line)
        print(shown, end="", file=file or sys.stderr)


def _is_library(filename: str) -> bool:
    """Whether code is installed, Python's own, or of this package, whose calls a user cannot change."""
    installed = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    ours = Path(__file__).parent.parent
    folders = [*map(Path, installed), ours, *(ours.parent / name for name in _BESIDE)]
    return filename.startswith("<") or any(map(Path(filename).is_relative_to, folders))


def broken_torch(error: BaseException | None) -> str | None:
    """What to do about a torch and a torchvision that do not go together, if an error comes from that."""
    while error is not None:
        if "torchvision::nms" in str(error):
            return (
                "torch and torchvision do not fit each other (operator torchvision::nms does not exist): install both "
                "from the same place, such as: pip install --force-reinstall torch torchvision"
            )
        error = error.__cause__ or error.__context__
    return None
