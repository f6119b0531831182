"""Errors that a user can mend: one line each, shown without a traceback, exit code 2; and the warning. Holds no error for
bugs of ours."""

import re

_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_NOT_CACHED = re.compile(r"cannot find the requested files in the local cache|in the cached files")
_UNFIT = re.compile(r"loading state_dict for (\w+):\s*(.*)", re.S)
_KEYS = re.compile(r"(Missing|Unexpected) key\(s\) in state_dict: (.*)")
_WANTS_CODE = re.compile(r"trust_remote_code|custom code", re.I)
_REFUSED_BY_TORCH = re.compile(r"weights only load failed.*?(?:GLOBAL ([\w.]+)|$)", re.I | re.S)


def one_line(said: object) -> str:
    """What a library says, in one printable line. Of weights that do not fit the first tensor is named, of the hub that it
    cannot be reached, of a model's own Python code that it is not run; where torch refuses a pickle that holds more than tensors, its advice to load it all the same is
    left out."""
    text = _TERMINAL_CODE.sub("", str(said))
    if _NOT_CACHED.search(text):
        text = "not in the local cache, and the Hugging Face hub cannot be reached"
    if unfit := _UNFIT.search(text):
        problem = unfit[2].partition("\n")[0]
        if keys := _KEYS.match(problem):
            names = re.findall(r'"([^"]+)"', keys[2])
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            problem = f"{keys[1].lower()} are {names[0]}{more}"
        text = f"its tensors are not those of a {unfit[1]}: {problem}"
    if _WANTS_CODE.search(text):
        text = "it brings Python code of its own (auto_map), which is not run"
    if refused := _REFUSED_BY_TORCH.search(text):
        more = f", such as {refused[1]}" if refused[1] else ""
        text = f"a pickle that holds more than tensors{more}; its code is not run"
    line = " ".join(text.split())
    return line if line.isprintable() else repr(line)


def shortened(line: str, most: int = 1000) -> str:
    """A line for a page or a terminal: of a very long one, which repeats what was given, beginning and end."""
    return line if len(line) <= most else f"{line[: most // 2]} ... {line[-most // 2 :]}"


_RAN_OUT = (
    "DefaultCPUAllocator",
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there was no memory left, of whatever kind."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _RAN_OUT)


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


def not_of_plugin(error: BaseException) -> bool:
    """Whether what came out of a user's own code is no fault of it: an error that names what to mend, too little memory,
    somebody who stops the command."""
    return isinstance(error, (UserError, KeyboardInterrupt, GeneratorExit)) or ran_out(error)
