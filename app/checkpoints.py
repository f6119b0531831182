"""Which generators the playground may load: the embedded one, and checkpoints whose files, and those of the model they
began with, all lie in the runs folder. Loads nothing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..api.models import CFG_SCALE, run_of, usual_sampling
from ..config.plugins import PLUGIN
from ..errors import RunError, UserError
from ..models import embedded_names
from ..run_folder.layout import require_within
from ..run_folder.reader import RunReader
from .runs import RunShelf
from .texts import is_text

EMBEDDED = "shapes"


def embedded_choices() -> list[tuple[str, str]]:
    """(label, name) of the generators that come with the package."""
    return [(f"the embedded generator ({name})", name) for name in embedded_names()]


def choices(shelf: RunShelf) -> list[tuple[str, str]]:
    """(label, name) of what can be loaded: the embedded generator, and the newest checkpoints of every run on images."""
    found = embedded_choices()
    for status in shelf.statuses():
        with suppress(UserError, OSError):
            reader = shelf.open(status.path.name)
            if is_text(reader):
                continue
            for step in reversed(reader.checkpoints()):
                with suppress(RunError):
                    reader.checkpoint(step)
                    name = reader.path.name
                    found.append((f"{name}, checkpoint of step {step}", f"{name}@{step}"))
    return found


def address(shelf: RunShelf, name: str) -> str:
    """What `api.load_model` takes for a name in `choices`.

    Raises:
        RunError: it is none of them, or a part of it lies outside of the runs folder.
    """
    if name in embedded_names():
        return name
    run, _, step = name.rpartition("@")
    reader = shelf.open(run)
    if is_text(reader):
        raise RunError(f"{run} is a run on text, which draws no image")
    if not step.isdecimal() or int(step) not in reader.checkpoints():
        raise RunError(f"{run} has no checkpoint of step {step!r}")
    reader.checkpoint(int(step))
    require_known_start(reader, shelf.root)
    return f"{reader.path}@{int(step)}"


def guidance(shelf: RunShelf, name: str) -> float:
    """What a name in `choices` is sampled with at first: a run's is that of its training."""
    try:
        return float(usual_sampling(address(shelf, name))["cfg_scale"])
    except (UserError, OSError):  # sampling will say what is wrong
        return CFG_SCALE


def newest(shelf: RunShelf, run: object) -> str:
    """The name in `choices` of a run's newest checkpoint; the embedded generator where it has none, or draws no image."""
    with suppress(UserError, OSError):
        reader = shelf.open(run)
        steps = reader.checkpoints()
        if steps and not is_text(reader):
            name = f"{reader.path.name}@{steps[-1]}"
            address(shelf, name)
            return name
    return EMBEDDED


def beginning(shelf: RunShelf, name: str) -> str:
    """The model that a name in `choices` goes back to, through all runs: an embedded one's name, a hub id, or a folder.

    Raises:
        RunError: see `address`.
    """
    if name in embedded_names():
        return name
    address(shelf, name)  # refuses what is none of them
    return require_known_start(shelf.open(name.rpartition("@")[0]), shelf.root)


def require_known_start(reader: RunReader, root: Path) -> str:
    """Refuses a run that did not begin with an embedded model, a hub id, or something in the runs folder.

    Returns:
        What it began with, through all runs before it.

    Raises:
        RunError: model.name is missing, calls a function, or is a folder or a run elsewhere.
    """
    where = f"{reader.path / 'config.yaml'}: model.name"
    try:
        start = reader.config()["model"]["name"]
    except (KeyError, TypeError):
        raise RunError(f"{where}: missing") from None
    if not isinstance(start, str) or PLUGIN.fullmatch(start):
        raise RunError(
            f"{where}: {start!r:.80} is not loaded here, as it would run code that the run names; t2i-credit sample does"
        )
    if run := run_of(start):
        earlier = RunReader(run[0], within=root)
        earlier.checkpoint(max(earlier.checkpoints(), default=0) if run[1] is None else run[1])
        return require_known_start(earlier, root)
    if start not in embedded_names() and Path(start).exists():
        require_within(Path(start), root)
    return start
