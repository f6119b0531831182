"""What people write: `~` and variables in a path, which stand for what a shell would put there, and words for null. Opens no
file."""

from __future__ import annotations

import os
import re
from typing import Any

from ..errors import UserError

_NULL_WORDS = ("none", "null", "nil")  # what languages call null, in any case
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)


def expanded(path: str) -> str:
    """A path with `~`, `$NAME` and `${NAME}` replaced; what has none of them stays as it is, a name or an address too.

    Raises:
        UserError: there is no such variable or user, and no file of this very name.
    """
    found = os.path.expanduser(os.path.expandvars(path))
    if os.path.exists(found):
        return found
    unset = [a or b for a, b in _VARIABLE.findall(path) if (a or b) not in os.environ]
    if unset:
        raise UserError(f"{path!r}: the variable {unset[0] or '${}'} is not set")
    if found.startswith("~"):
        raise UserError(f"{path!r}: there is no user {found[1:].split('/')[0]!r}")
    return found


def is_null_word(value: Any) -> bool:
    """Whether a value is a text such as "None", which nobody means where null is allowed."""
    return isinstance(value, str) and value.strip().casefold() in _NULL_WORDS
