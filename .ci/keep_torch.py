"""Prints requirements.lock around a torch that is there already: with its version, and without what it brings itself.

Started by `make install TORCH=keep` with the interpreter of the environment.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

KEPT = ("torch", "torchvision")


def canonical(requirement: str) -> str:
    """The name in a requirement, as indexes write it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement.strip())[0]).lower()


def brought_by(names: tuple[str, ...]) -> set[str]:
    """These distributions and what is installed for them."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        try:
            needed = requires(name) or []
        except PackageNotFoundError:  # needed on other systems
            continue
        if name not in found:
            found.add(name)
            waiting += [canonical(line) for line in needed if "extra ==" not in line]
    return found


def main() -> None:
    """Exit code 2 and one line where there is no pair that works."""
    try:
        import torch
        import torchvision  # registers torchvision::nms with torch, or fails
    except Exception as error:
        what = (
            "torch and torchvision"
            if isinstance(error, ImportError)
            else "torch and a torchvision that fits it"
        )
        reason = str(error).strip().splitlines()[0]
        sys.exit(
            f"error: TORCH=keep needs {what} in the environment that is active, and they do not import: {reason}"
        )
    brought = brought_by(KEPT)
    for line in Path(sys.argv[1]).read_text().splitlines():
        if line.strip() and not line.startswith("#") and canonical(line) not in brought:
            print(line)
    print(f"torch=={torch.__version__}\ntorchvision=={torchvision.__version__}")


if __name__ == "__main__":
    main()
