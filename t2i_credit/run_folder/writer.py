"""The run folder (`format: 1`): one writer, one reader. Knows
nothing of training. The reader is in reader.py.

    config.yaml  environment.json  status.json  metrics.jsonl
    steps/000010/{samples.json, arrays.safetensors, 0000.png, ...}    of a run on text samples.json alone
    steps/000010/{alternatives.safetensors, 0000-alternatives.png, ...}    if asked for; see alternatives.py
    checkpoints/000100/
    evaluations/<name>.json, .jsonl
    heatmaps/000010/                      drawn from steps/, can be thrown away

Files appear whole or not at all; readers tolerate a run in progress. Steps count from 1: step n is
the n-th update, checkpoint n holds the state after it. Shapes: B samples, T = H*W image tokens;
sample b belongs to group b // G.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image
from safetensors.numpy import save as save_arrays

from ..errors import RunError
from ..rollout.images import to_uint8
from ..yaml_text import write_yaml
from .alternatives import write_alternatives
from .atomic import (
    cannot,
    json_bytes,
    make_folder,
    write_atomic,
    write_folder_atomic,
    write_json,
    write_png,
)
from .layout import encode_mask, evaluation_path, step_name
from .reader import RunReader
from .start import Start

if TYPE_CHECKING:
    from torch import Tensor

    from ..interfaces import Rollout

HEARTBEAT_EVERY = 5.0  # seconds: heartbeats that bring no new step are written at most this often
EndState = Literal["finished", "failed", "stopped"]


class RunWriter:
    """Writes into one run folder. `RunWriter(path)` opens an existing run, to add an evaluation to
    it; training uses `with RunWriter.planned(...) as run:` and `run.begin()`, which keeps status.json
    true to the end, errors included.

    Attributes:
        path: the run folder.
        checkpoints: where `save_checkpoint` and `load_checkpoint` look.
        resume_step: the checkpoint to continue from; 0 = start from the beginning.
    """

    def __init__(self, path: Path | str, start: Start | None = None) -> None:
        self.path = RunReader(path).path if start is None else Path(path)
        self.checkpoints = self.path / "checkpoints"
        self._start, self.resume_step = start, start.check(self.path) if start else 0
        self._status: dict[str, Any] = {}

    @classmethod
    def planned(
        cls,
        path: Path | str,
        *,
        config: Mapping[str, Any] | str,
        environment: Mapping[str, Any],
        total: int,
        resume: bool = False,
    ) -> RunWriter:
        """A run folder to be made, or an old one to be taken up at its latest checkpoint: checks that it can be, and
        changes nothing before `begin`.

        Args:
            path: the run folder.
            config: the resolved configuration, as a mapping or as YAML.
            environment: versions, device, seed, commit; a resumed run keeps the first and lists the
                later ones.
            total: steps of the whole run.
            resume: continue: what was written after the latest checkpoint is cut away.

        Raises:
            RunError: the run exists (without `resume`), is missing (with it), has had more steps than `total`, or is
                being written by another process.
        """
        text = config if isinstance(config, str) else write_yaml(dict(config))
        return cls(path, Start(text, environment, total, resume))

    @classmethod
    def create(cls, path: Path | str, **planned: Any) -> RunWriter:
        """`planned` and begun."""
        run = cls.planned(path, **planned)
        run.begin()
        return run

    def begin(self) -> None:
        """Makes the folder, or cuts it back to the checkpoint; from here on status.json says how the run stands.

        Raises:
            RunError: see `planned`, whose checks are made again; or the disk refuses.
        """
        assert self._start is not None, self.path
        self._status = self._start.write(self.path)

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: Any
    ) -> None:
        if kind is None:
            self.finish("finished")
            return
        with suppress(RunError):  # the first error is the one to report
            stopped = issubclass(kind, KeyboardInterrupt)
            self.finish("stopped" if stopped else "failed", message=f"{error}" or kind.__name__)

    def heartbeat(self, step: int | None = None) -> None:
        """Says that the process lives; cheap enough for every micro-batch of a long step."""
        quiet = time.time() - self._status["heartbeat"] < HEARTBEAT_EVERY
        if quiet and step in (None, self._status["step"]):
            return
        step = self._status["step"] if step is None else step
        self._status.update(heartbeat=time.time(), step=step)
        write_json(self.path / "status.json", self._status)

    def finish(self, state: EndState, message: str = "") -> None:
        """The last word in status.json; once said, or before the run has begun, it is ignored."""
        if self._status.get("state") == "running":
            self._status.update(state=state, message=message, heartbeat=time.time())
            write_json(self.path / "status.json", self._status)

    def append_metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Adds one whole line to metrics.jsonl, and a heartbeat. Non-finite numbers become null."""
        path = self.path / "metrics.jsonl"
        line = json_bytes({"step": step, **metrics}) + b"\n"
        try:
            with open(path, "ab", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                try:
                    if file.write(line) != len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(size)
                    raise
        except OSError as error:
            raise cannot("written", path, error) from error
        self.heartbeat(step)

    def write_step(
        self,
        step: int,
        rollout: Rollout,
        *,
        grid: tuple[int, int],
        codebook_size: int,
        rewards: Tensor,
        reward_parts: Mapping[str, Tensor],
        reward_normalized: Mapping[str, Tensor] | None = None,
        advantages: Tensor,
        credit: Tensor,
        token_advantages: Tensor,
        contrast: Tensor | None = None,
        objects: Sequence[Sequence[Mapping[str, Any]]] | None = None,
        rows: Tensor | Sequence[int] | None = None,
        probes: int = 0,
        swapped: Tensor | None = None,
    ) -> Path:
        """Keeps samples of a step with their images, log-probabilities and credit; returns the
        folder.

        Args:
            step: from 1.
            rollout: B samples.
            grid: (H, W), rows and columns.
            codebook_size: V.
            rewards, advantages: (B,).
            reward_parts: {name: (B,)}.
            reward_normalized: {name: (B,)} of the parts that are normalised before they are weighed.
            credit, token_advantages, contrast: (B, T).
            objects: for each of the B samples what is known of its objects: {"name", "box", "mask"
                (h, w) bool, ...}.
            rows: which samples to keep, whole groups if the contact sheet is to show them; None =
                all.
            probes: how many of the B samples, at the end, belong to prompts that come back with the
                same noise at every kept step and are not trained on.
            swapped: (B, 3, K*H*S, W*S) in [0, 1], what the rollout's alternatives would show, as of
                `swapped_pictures`; None = they are not kept.
        """
        kept = list(range(len(rollout))) if rows is None else [int(row) for row in rows]
        arrays = {
            "tokens": rollout.tokens,
            "logprobs": rollout.logprobs,
            "negative_logprobs": rollout.negative_logprobs,
            "guided_logprobs": rollout.guided_logprobs,
            "contrast": contrast,
            "credit": credit,
            "token_advantages": token_advantages,
            "entropy": rollout.entropy,
            "value_change": None if rollout.values is None else rollout.values.diff(dim=1),
            "reward_map": rollout.reward_map,
        }
        saved = {name: _array(value, kept) for name, value in arrays.items() if value is not None}
        for name, array in saved.items():
            assert array.shape == (len(kept), grid[0] * grid[1]), (name, array.shape, grid)
        samples = [
            {
                "image": f"{place:04d}.png",
                "index": row,
                "group": row // rollout.group_size,
                "prompt": rollout.prompts[row].text,
                "negative": rollout.prompts[row].negative,
                "spec": rollout.prompts[row].spec,
                "reward": float(rewards[row]),
                "reward_parts": {name: float(part[row]) for name, part in reward_parts.items()},
                "reward_normalized": {
                    name: float(part[row]) for name, part in (reward_normalized or {}).items()
                },
                "advantage": float(advantages[row]),
                "gold": bool(rollout.gold[row]),
                "probe": row >= len(rollout) - probes,
                "objects": None if objects is None else [_object(entry) for entry in objects[row]],
            }
            for place, row in enumerate(kept)
        ]
        header = {"step": step, "grid": grid, "group_size": rollout.group_size}
        header |= {"codebook_size": codebook_size, "samples": samples}
        images = to_uint8(rollout.images[kept])
        with write_folder_atomic(self.path / "steps" / step_name(step)) as folder:
            write_json(folder / "samples.json", header)
            write_atomic(folder / "arrays.safetensors", save_arrays(saved))
            for sample, image in zip(samples, images, strict=True):
                write_png(folder / str(sample["image"]), Image.fromarray(image))
            if swapped is not None:
                codes, logprobs = rollout.alternatives, rollout.alternative_logprobs
                assert codes is not None and logprobs is not None
                pictures = to_uint8(swapped[kept])
                write_alternatives(folder, _array(codes, kept), _array(logprobs, kept), pictures)
        return self.path / "steps" / step_name(step)

    def write_text_step(
        self, step: int, samples: Sequence[Mapping[str, Any]], *, group_size: int
    ) -> Path:
        """Keeps answers of a step of a run on text; returns the folder.

        Args:
            step: from 1.
            samples: of each answer prompt, negative, completion, reward, reward_parts, advantage, gold, group, and
                lists with a value per token: tokens, logprobs, credit, ...
            group_size: G.
        """
        header = {"step": step, "text": True, "group_size": group_size, "samples": samples}
        with write_folder_atomic(self.path / "steps" / step_name(step)) as folder:
            write_json(folder / "samples.json", header)
        return self.path / "steps" / step_name(step)

    def write_evaluation(
        self, name: str, result: Mapping[str, Any], images: Iterable[Mapping[str, Any]] = ()
    ) -> Path:
        """Writes evaluations/<name>.jsonl and <name>.json; see the function of this name."""
        return write_evaluation(self.path / "evaluations", name, result, images)


def write_evaluation(
    folder: Path, name: str, result: Mapping[str, Any], records: Iterable[Mapping[str, Any]]
) -> Path:
    """Writes <name>.jsonl (one line per image or answer), then <name>.json, whose presence says that both are complete;
    returns the latter. Raises RunError for a name that leaves the folder, or when the disk refuses."""
    path = evaluation_path(folder, name)
    lines = [json_bytes(record) + b"\n" for record in records]
    make_folder(folder)
    write_atomic(folder / f"{name}.jsonl", b"".join(lines))
    write_json(path, result)
    return path


def _object(entry: Mapping[str, Any]) -> dict[str, Any]:
    if entry.get("mask") is None:
        return dict(entry)
    return {**entry, "mask": encode_mask(entry["mask"])}


def _array(tensor: Tensor, rows: list[int]) -> np.ndarray:
    array = tensor.detach()[rows].cpu()
    array = array.float() if array.is_floating_point() else array.int()
    return np.ascontiguousarray(array.numpy())
