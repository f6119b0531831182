"""Prints requirements.lock around a torch that is there already: with its version, and without what it brings itself.

Started by `make install TORCH=keep`: first with the interpreter of the environment that is active, to see whether there is
a pair that works, then with that of .venv, which stands on it.
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

KEPT = ("torch", "torchvision")


def brought_by(*lines: str) -> set[str]:
    """The names of these requirements and of all that is installed for them."""
    from pip._vendor.packaging.requirements import Requirement
    from pip._vendor.packaging.utils import canonicalize_name

    found: set[str] = set()
    seen: set[str] = set()
    waiting = list(lines)
    while waiting:
        if (line := waiting.pop()) in seen:
            continue
        seen.add(line)
        asked = Requirement(line)
        try:
            needed = list(map(Requirement, requires(asked.name) or []))
        except PackageNotFoundError:  # needed on other systems
            continue
        found.add(canonicalize_name(asked.name))
        for one in needed:
            extras = [{"extra": extra} for extra in ("", *asked.extras)]
            if one.marker is None or any(map(one.marker.evaluate, extras)):
                one.marker = None
                waiting.append(str(one))
    return found


def numbers(text: str) -> list[int]:
    """Major and minor of a version."""
    return [int(part) for part in re.findall(r"\d+", text)[:2]]


def main(lock: str | None) -> None:
    """Exit code 1 and one line where there is no pair that works and is new enough. Without a lock that is all."""
    if sys.version_info < (3, 11):  # noqa: UP036 - whatever is active starts this
        sys.exit(
            f"error: TORCH=keep needs Python >= 3.11, and {sys.prefix} has {sys.version.split()[0]}"
        )
    try:
        import_module(KEPT[1])  # imports torch, and registers torchvision::nms with it or fails
    except Exception as error:
        missing = isinstance(error, ImportError)
        what = "torch and torchvision" if missing else "torch and a torchvision that fits it"
        sys.exit(
            f"error: TORCH=keep needs {what} in {sys.prefix}, and they do not import: "
            + str(error).strip().splitlines()[0]
        )
    least = re.search(r'"torch>=([\d.]+)"', Path("pyproject.toml").read_text(encoding="utf-8"))
    if least and numbers(version(KEPT[0])) < numbers(least[1]):
        sys.exit(
            f"error: TORCH=keep needs torch >= {least[1]}, and {sys.prefix} has {version(KEPT[0])}"
        )
    if lock is None:
        return
    brought = brought_by(*KEPT)
    for line in Path(lock).read_text().splitlines():
        if not line.startswith("#") and line.partition("==")[0] not in brought:
            print(line)
    for name in KEPT:
        print(f"{name}=={version(name)}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
