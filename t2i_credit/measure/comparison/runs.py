"""The runs of a comparison: which there are, whether they can be compared, and running those that are left.

Each is an ordinary run folder, trained and evaluated in a process of its own. Says nothing about what came out: see
results.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...config.files import dotted
from ...config.places import anchored
from ...config.schema import load_config, to_yaml
from ...config.text import load_text_config
from ...config.values import folder_name, with_section
from ...errors import ConfigError, RunError
from ...run_folder.atomic import write_atomic
from ...run_folder.reader import RunReader
from .images import Images
from .kind import AnyConfig, EvaluationPlan, Kind, Run, Say
from .text import Text


def method_names(recipes: Sequence[str]) -> dict[str, str]:
    """{short name: recipe}: "shapes/grpo" and "grpo.yaml" are "grpo".

    Raises:
        ConfigError: fewer than two recipes, or two of one name.
    """
    found: dict[str, str] = {}
    for recipe in recipes:
        stem = Path(recipe).name.removesuffix(".yaml").removesuffix(".yml")
        name = re.sub(r"[^\w.-]+", "-", stem, flags=re.ASCII)
        if name in found:
            raise ConfigError(
                f"{recipe}: its name {name!r} is taken by {found[name]}; rename one of the files"
            )
        found[name] = recipe
    if len(found) < 2:
        raise ConfigError(f"compare: {len(found)} recipe given; at least 2 are compared")
    return found


def plan_runs(
    recipes: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    base: str | None = None,
    overrides: Sequence[str] = (),
    *,
    own: Mapping[str, Sequence[str]] = MappingProxyType({}),
    suffix: str = "",
) -> list[Run]:
    """Every method with every seed, seed by seed, so that a half comparison is a whole one of fewer seeds.

    Args:
        recipes: names or files.
        seeds: of prompts and noise.
        out: folder of all runs.
        base: the model that all begin from; None = the recipes'.
        overrides: KEY=VALUE of all recipes.
        own: {short name: KEY=VALUE of that recipe alone}.
        suffix: ends the name of every run.

    Raises:
        ConfigError: a wrong recipe or override, or recipes that cannot be compared.
    """
    names = method_names(recipes)
    loaded = {
        name: load_recipe(recipe, [*overrides, *own.get(name, ())])
        for name, recipe in names.items()
    }
    if base is not None:
        loaded = {n: (kind, with_section(c, "model", name=base)) for n, (kind, c) in loaded.items()}
    check_comparable(names, loaded)
    runs = []
    for seed in seeds:
        for name, (kind, config) in loaded.items():
            folder = folder_name(f"{name}-seed{seed}{suffix}")
            of_seed = with_section(
                kind.alone(config), "train", seed=seed, out=str(out), name=folder
            )
            runs.append(Run(name, seed, kind, with_section(of_seed, "prompts", seed=seed)))
    return runs


def check_comparable(
    recipes: Mapping[str, str], loaded: Mapping[str, tuple[Kind, AnyConfig]]
) -> None:
    """Raises ConfigError where some recipes are for images and some for text, or where model, prompts, reward or budget
    of two differ, with the key and both values.

    Args:
        recipes: {short name: recipe}.
        loaded: {short name: its kind and configuration}.
    """
    (first, (ours, config)), *others = loaded.items()
    for name, (theirs, _) in others:
        if theirs.name != ours.name:
            raise ConfigError(
                f"compare: {recipes[first]} is for {ours.name} and {recipes[name]} for {theirs.name}; "
                "recipes of one kind are compared"
            )
    shared = ours.shared(config)
    for name, (theirs, other) in others:
        for key, value in theirs.shared(other).items():
            if value != shared[key]:
                raise ConfigError(
                    f"compare: {key} is {shared[key]!r} in {recipes[first]} and {value!r} in {recipes[name]}; recipes "
                    "are compared on one model, one prompt set, one reward and one budget (an override "
                    f"{key}=... sets it for all)"
                )


def check_runs(runs: Sequence[Run], ignored: str | None = None) -> None:
    """Refuses to go on in a folder that holds other runs.

    Args:
        runs: those to make or to go on with.
        ignored: a key whose value may differ.

    Raises:
        RunError: a run was made with another configuration, or a process is still writing it.
    """
    for run in runs:
        if not run.path.exists():
            continue
        reader = RunReader(run.path, strict=False)
        both = reader.config(), run.config.model_dump(mode="json")
        theirs, ours = (dotted(anchored(tree)) for tree in both)
        for key in ours:
            if key != ignored and key in theirs and theirs[key] != ours[key]:
                raise RunError(
                    f"{run.path}: {key} was {theirs[key]!r} when this run began and is {ours[key]!r} now; "
                    "take another --out"
                )
        status = reader.status(strict=False)
        if status.state == "running":
            raise RunError(f"{run.path}: process {status.pid} is writing this run; wait or stop it")


def is_complete(run: Run, evaluation: EvaluationPlan | None) -> bool:
    """Whether a run is trained, and evaluated where that is asked for."""
    return run.state() == "finished" and (
        evaluation is None or all(evaluation.found(run.path, s) for s in evaluation.splits)
    )


def finish_runs(
    runs: Sequence[Run], evaluation: EvaluationPlan | None, *, workers: int, say: Say
) -> None:
    """Runs what is left, at most `workers` runs at a time, each with one CPU thread; stops with them when stopped.

    Without an evaluation plan they are trained alone.

    Raises:
        RunError: a run failed; those that were going on are finished first, no other is begun.
    """
    for run in runs:
        for path in (run.config_file, run.log):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(run.config_file, to_yaml(run.config).encode())
    left = [run for run in runs if not is_complete(run, evaluation)]
    processes = _Processes()
    with _terminable(), ThreadPoolExecutor(workers) as pool:
        waiting = {pool.submit(_finish, run, evaluation, processes): run for run in left}
        total, finished = len(waiting), 0
        failure: BaseException | None = None
        try:
            while waiting:
                for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                    run = waiting.pop(done)
                    if done.cancelled():
                        continue
                    if error := done.exception():
                        failure = failure or error
                        for other in waiting:
                            other.cancel()
                    elif done.result():
                        finished += 1
                        say(f"{run.path.name}: done, {total - finished} of {total} left")
        except BaseException:
            for other in waiting:
                other.cancel()
            processes.stop()
            raise
    if failure is not None:
        raise failure


class _Processes:
    """The runs that are going on; once they are stopped or one has failed, no other begins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def run(self, command: Sequence[str], **how: Any) -> int | None:
        """Runs a command to its end; its exit code, None if it was not begun."""
        with self._lock:
            if self._closed:
                return None
            process = subprocess.Popen(command, **how)
            self._running.add(process)
        code = process.wait()
        with self._lock:
            self._running.discard(process)
            self._closed = self._closed or code != 0
        return code

    def stop(self) -> None:
        """Ends them all."""
        with self._lock:
            self._closed = True
            for process in self._running:
                process.terminate()


@contextmanager
def _terminable() -> Iterator[None]:
    """Makes signals that end this process exceptions, so that the runs going on are stopped too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda number, frame: sys.exit(128 + number))
        for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, take in before.items():
            signal.signal(number, take)


def _finish(run: Run, evaluation: EvaluationPlan | None, processes: _Processes) -> bool:
    """Finishes one run in a process of its own (cli/worker.py), its output in its log; False if not begun."""
    # a user's own plug-ins are found as in this process
    found = os.pathsep.join(path for path in sys.path if path)
    plan = json.dumps(evaluation and asdict(evaluation))
    with open(run.log, "ab") as log:
        code = processes.run(
            [
                *(sys.executable, "-m", "t2i_credit.cli.worker"),
                *(str(run.config_file), plan, str(os.getpid())),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C of the terminal comes here, and goes on to each once
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": found},
        )
    if code:
        lines = run.log.read_text("utf-8", "replace").strip().splitlines()
        told = lines[-1].removeprefix("error: ") if lines else f"exit code {code}"
        raise RunError(f"{run.path}: {told} (the rest: {run.log})")
    return code is not None


def load_recipe(recipe: str, overrides: Sequence[str] = ()) -> tuple[Kind, AnyConfig]:
    """The kind of a recipe and its configuration.

    Raises:
        ConfigError: one line.
    """
    text = load_text_config(recipe, overrides)
    if text is None:
        return Images(), load_config(recipe, overrides)
    config, origin = text
    return Text(origin), config
