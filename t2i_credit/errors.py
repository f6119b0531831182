"""Errors that a user can mend: one line each, shown without a traceback, exit code 2; and the warning. Holds no error for
bugs of ours."""

import re

_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_REFUSED_BY_TORCH = re.compile(r"weights only load failed.*?(?:GLOBAL ([\w.]+)|$)", re.I | re.S)


def one_line(said: object) -> str:
    """What a library says, in one printable line. Where torch refuses a pickle that holds more than tensors, its advice
    to load it all the same is left out."""
    text = _TERMINAL_CODE.sub("", str(said))
    if refused := _REFUSED_BY_TORCH.search(text):
        more = f", such as {refused[1]}" if refused[1] else ""
        text = f"a pickle that holds more than tensors{more}; its code is not run"
    line = " ".join(text.split())
    return line if line.isprintable() else repr(line)


class UserError(ValueError):
    """Something given to the toolkit cannot be used; the message is one line that says what, and what is allowed."""


class ConfigError(UserError):
    """A configuration file, key or value is wrong."""


class PromptError(UserError):
    """A prompt file or a GenEval record is wrong."""


class UnknownClassError(PromptError):
    """A GenEval record asks for an object that the detector does not know."""


class ModelError(UserError):
    """A model folder is missing, incomplete or does not fit."""


class RunError(UserError):
    """A run folder cannot be read, written or resumed."""


class TrainingError(UserError):
    """Training cannot go on (non-finite loss, a guard rail); the message names the step."""


class T2ICreditWarning(RuntimeWarning):
    """Something works, but not as it could; the commands show it as one line."""
