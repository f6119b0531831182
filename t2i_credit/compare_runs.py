"""The runs of a comparison: which there are, whether they can be compared, and running those that are left.

Each is an ordinary run folder, trained and evaluated in a process of its own. Says nothing about what came out: see
compare.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .atomic import write_atomic
from .config import Config, load_config, to_yaml
from .errors import ConfigError, RunError
from .run_reader import RunReader, dotted

SPLITS = ("train", "heldout")
# What the recipes of a comparison must agree on, beside the sections model and reward.
_SAME = (
    *(f"prompts.{key}" for key in ("source", "split", "tasks", "negative", "per_step", "balance")),
    "rollout.group_size",
    "train.steps",
)


@dataclass(frozen=True)
class Run:
    """One run of a comparison.

    Attributes:
        method: the recipe's short name.
        seed: of prompts and noise.
        config: resolved; `train.out` and `train.name` say where the run lies.
    """

    method: str
    seed: int
    config: Config

    @property
    def path(self) -> Path:
        """The run folder."""
        return Path(self.config.train.out) / str(self.config.train.name)

    @property
    def config_file(self) -> Path:
        """The resolved configuration, from which the run is trained."""
        return Path(self.config.train.out) / "configs" / f"{self.config.train.name}.yaml"

    @property
    def log(self) -> Path:
        """What its commands print."""
        return Path(self.config.train.out) / "logs" / f"{self.config.train.name}.log"

    def state(self) -> str:
        """missing, or as the run's status says: finished, running, killed, stopped, failed."""
        return RunReader(self.path).status().state if self.path.exists() else "missing"

    def steps_left(self) -> int:
        """Steps that are still to be trained."""
        state = self.state()
        if state in ("missing", "finished"):
            return self.config.train.steps if state == "missing" else 0
        return self.config.train.steps - max(RunReader(self.path).checkpoints(), default=0)


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """How every final model is evaluated: prompts per task, images of each, guidance, seed of the noise."""

    prompts: int = 50
    images: int = 4
    cfg_scale: float
    seed: int = 0

    def found(self, run: Path, split: str) -> dict[str, Any] | None:
        """The run's evaluation of this plan, or None."""
        reader = RunReader(run)
        for name in reader.evaluations():
            if not name.startswith(f"{split}-"):
                continue
            value = reader.evaluation(name)
            protocol, tasks = value.get("protocol", {}), value.get("summary", {})
            asked = (self.images, self.cfg_scale, self.seed)
            keys = ("images_per_prompt", "cfg_scale", "seed")
            most = max((task["prompts"] for n, task in tasks.items() if n != "overall"), default=0)
            if tuple(protocol.get(key) for key in keys) == asked and most == self.prompts:
                return value
        return None


def method_names(recipes: Sequence[str]) -> dict[str, str]:
    """{short name: recipe}: "shapes/grpo" and "grpo.yaml" are "grpo".

    Raises:
        ConfigError: fewer than two recipes, or two of one name.
    """
    found: dict[str, str] = {}
    for recipe in recipes:
        name = re.sub(
            r"[^\w.-]+", "-", Path(recipe).name.removesuffix(".yaml").removesuffix(".yml")
        )
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
) -> list[Run]:
    """Every method with every seed, seed by seed, so that a half comparison is a whole one of fewer seeds.

    Raises:
        ConfigError: a wrong recipe or override, or recipes that cannot be compared.
    """
    names = method_names(recipes)
    configs = {name: load_config(recipe, overrides) for name, recipe in names.items()}
    if base is not None:
        configs = {name: _with(config, "model", name=base) for name, config in configs.items()}
    check_comparable(names, configs)
    runs = []
    for seed in seeds:
        for name, config in configs.items():
            own = {"seed": seed, "out": str(out), "name": f"{name}-seed{seed}", "trackers": ()}
            config = _with(_with(config, "train", **own), "prompts", seed=seed)
            runs.append(Run(name, seed, config))
    return runs


def _with(config: Config, section: str, **changes: Any) -> Config:
    """The configuration with keys of one section changed."""
    changed = getattr(config, section).model_copy(update=changes)
    return config.model_copy(update={section: changed})


def check_comparable(recipes: Mapping[str, str], configs: Mapping[str, Config]) -> None:
    """Raises ConfigError where model, prompts, reward or budget of two recipes differ, with the key and both values."""
    (first, ours), *others = configs.items()
    for name, config in others:
        for key, (a, b) in _differences(ours, config).items():
            raise ConfigError(
                f"compare: {key} is {a!r} in {recipes[first]} and {b!r} in {recipes[name]}; recipes are compared "
                f"on one model, one prompt set, one reward and one budget (an override {key}=... sets it for all)"
            )


def _differences(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """{key: both values} of what must be the same and is not."""
    sections = [config.model_dump(mode="json") for config in (a, b)]
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*(f"model.{k}" for k in sections[0]["model"]), "reward", *_SAME]:
        values = []
        for section in sections:
            value: Any = section
            for part in key.split("."):
                value = value[part]
            values.append(value)
        if values[0] != values[1]:
            found[key] = (values[0], values[1])
    return found


def check_runs(runs: Sequence[Run]) -> None:
    """Refuses to go on in a folder that holds other runs.

    Raises:
        RunError: a run was made with another configuration, or a process is still writing it.
    """
    for run in runs:
        if not run.path.exists():
            continue
        reader = RunReader(run.path)
        theirs, ours = dotted(reader.config()), dotted(run.config.model_dump(mode="json"))
        for key in ours:
            if key in theirs and theirs[key] != ours[key]:
                raise RunError(
                    f"{run.path}: {key} was {theirs[key]!r} when this run began and is {ours[key]!r} now; "
                    "take another --out"
                )
        status = reader.status()
        if status.state == "running":
            raise RunError(f"{run.path}: process {status.pid} is writing this run; wait or stop it")


def is_complete(run: Run, evaluation: EvaluationPlan) -> bool:
    """Whether a run is trained and evaluated."""
    return run.state() == "finished" and all(evaluation.found(run.path, s) for s in SPLITS)


def finish_runs(
    runs: Sequence[Run],
    evaluation: EvaluationPlan,
    *,
    workers: int,
    say: Callable[[str], None],
) -> None:
    """Runs what is left, at most `workers` runs at a time, each with one CPU thread; stops with them when stopped.

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
        total = len(waiting)
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
                        say(f"{run.path.name}: done, {len(waiting)} of {total} left")
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
    """Makes a termination signal an exception, so that the runs going on are stopped too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _finish(run: Run, evaluation: EvaluationPlan, processes: _Processes) -> bool:
    """Finishes one run in a process of its own (compare_worker.py), its output in its log; False if not begun."""
    # a user's own plug-ins are found as in this process
    found = os.pathsep.join(path for path in sys.path if path)
    plan = json.dumps(asdict(evaluation))
    with open(run.log, "ab") as log:
        code = processes.run(
            [sys.executable, "-m", "t2i_credit.compare_worker", str(run.config_file), plan],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": found},
        )
    if code:
        lines = run.log.read_text("utf-8", "replace").strip().splitlines()
        told = lines[-1].removeprefix("error: ") if lines else f"exit code {code}"
        raise RunError(f"{run.path}: {told} (the rest: {run.log})")
    return code is not None
