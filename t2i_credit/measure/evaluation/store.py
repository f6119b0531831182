"""The evaluations behind one command: the one asked for and the one it is compared with, what they are called, where they
lie, what identifies them. They are kept as they are made and written together. Knows no command line.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ... import __version__
from ...api.models import load_model, run_of
from ...api.parts import load_prompt_set
from ...config.schema import parse_config
from ...errors import UserError
from ...interfaces import Prompt
from ...prompts.batches import overlap
from ...run_folder.layout import evaluation_path
from ...run_folder.reader import RunReader
from ...run_folder.writer import RunWriter
from .evaluate import Detect, evaluate, evaluate_images
from .image_folder import (
    ImageFolder,
    clear_images,
    is_image_folder,
    read_folder,
    read_protocol,
    write_protocol,
)
from .journal import Journal
from .protocol import SAMPLING, Protocol, defaults
from .report import write_report
from .scores import Evaluation, check_pair, load_evaluation, paired

Progress = Callable[[int, int], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """An evaluation, the one it is compared with, and where the first was written.

    Attributes:
        name: of the evaluation.
        evaluation, against: the one that was asked for, and the other, which counts as "before".
        changes: `paired` of both.
        path, page: the JSON and the HTML file, or None.
        warnings: what a reader of the scores should know.
    """

    name: str
    evaluation: Evaluation
    against: Evaluation | None
    changes: dict[str, dict[str, float]] | None
    path: Path | None
    page: Path | None
    warnings: list[str]


class Work:
    """Evaluations of one prompt set under one protocol, with the journals that are deleted when all is saved."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        detect: Detect,
        protocol: Protocol,
        warn: Say,
    ) -> None:
        self.prompts, self.detect = prompts, detect
        self.protocol, self.warn = protocol, warn
        self.journals: list[Journal] = []
        self.before_images: Path | None = None

    def other(self, name: str, folder: Path | None, progress: Progress | None) -> Evaluation:
        """The evaluation that counts as "before": read, judged, or sampled and judged.

        Raises:
            UserError: it cannot be paired with this one, known before anything is sampled if it is there already.
        """
        if name.endswith(".json"):
            found = load_evaluation(name)
            self.before_images = Path(found.about.get("images", Path(name).with_suffix("")))
            self.check(found)
            return found
        if is_image_folder(Path(name)):
            group = self.protocol.images_per_prompt
            images = read_folder(Path(name), prompts=self.prompts, images_per_prompt=group)
            judging = {k: v for k, v in self.protocol.to_dict().items() if k not in SAMPLING}
            images, protocol, about = origin_of(images, judging)
            self.before_images = images.path
            found = self.images(images, protocol, folder, about, progress)
            self.check(found)
        else:
            self.before_images = folder
            found = self.model(name, folder, {"model": name, **identity(name)}, progress)
        if folder:
            found.save(folder, "evaluation")
        return found

    def check(self, before: Evaluation) -> None:
        """Raises UserError unless `before` can be paired with what is about to be evaluated."""
        asked = [({**(p.spec or {}), "prompt": p.text}, p.negative) for p in self.prompts]
        check_pair(before, self.protocol, asked)

    def model(
        self, name: str, folder: Path | None, about: dict[str, Any], progress: Progress | None
    ) -> Evaluation:
        """Samples and judges; images and journal go into `folder`."""
        model = load_model(name)
        journal = self._journal(folder, about, self.protocol)
        if folder and journal:
            if not journal.found:
                clear_images(folder)
            sampling = self.protocol.sampling()
            negatives = [prompt.negative for prompt in self.prompts]
            write_protocol(folder, {"about": about, "sampling": sampling, "negatives": negatives})
        found = evaluate(
            model,
            self.prompts,
            self.detect,
            self.protocol,
            progress=progress,
            folder=folder,
            journal=journal,
        )
        return replace(found, about={**about, **stamp()})

    def images(
        self,
        images: ImageFolder,
        protocol: Protocol,
        folder: Path | None,
        about: dict[str, Any],
        progress: Progress | None,
    ) -> Evaluation:
        """Judges; the journal goes into `folder`."""
        about = {**about, "images": str(images.path.resolve())}
        journal = self._journal(folder, {**about, "newest": images.newest()}, protocol)
        found = evaluate_images(images, self.detect, protocol, progress=progress, journal=journal)
        return replace(found, about={**about, **stamp()})

    def finish(
        self,
        name: str,
        place: Path | None,
        out: Path | None,
        images: Path | None,
        after: Evaluation,
        before: Evaluation | None,
        warnings: list[str],
    ) -> Report:
        """Writes everything, the JSON file last but for the page, and lets go of the journals."""
        changes = paired(before, after) if before else None
        if faults := after.faults():
            told = f"{', '.join(faults[:3])}{', ...' if len(faults) > 3 else ''}"
            count = f"{len(faults)} of {len(after.records)} images"
            warnings = [*warnings, f"missing or unreadable, judged as wrong: {count}: {told}"]
            self.warn(warnings[-1])
        if place is None:
            return Report(name, after, before, changes, None, None, warnings)
        also: dict[str, Any] = {"warnings": warnings}
        if before:
            also |= {"paired": changes, "against": before.about}
        if out is None:
            RunWriter(place.parent.parent).write_evaluation(
                name, {**after.to_json(), **also}, after.records
            )
        else:
            after.save(out, name, also)
        page = write_report(
            place.with_suffix(".html"),
            name,
            after,
            images=images,
            before=before,
            before_images=self.before_images,
            changes=changes,
            warnings=warnings,
        )
        for journal in self.journals:
            journal.finish()
        return Report(name, after, before, changes, place, page, warnings)

    def _journal(
        self, folder: Path | None, about: Mapping[str, Any], protocol: Protocol
    ) -> Journal | None:
        if folder is None:
            return None
        settings = {k: v for k, v in protocol.to_dict().items() if k != "batch_size"}
        header = {"about": about, "protocol": settings, "prompts": prompts_digest(self.prompts)}
        journal = Journal(folder / "unfinished.jsonl", header, self.warn)
        self.journals.append(journal)
        return journal


def origin_of(
    folder: ImageFolder, judging: Mapping[str, Any]
) -> tuple[ImageFolder, Protocol, dict[str, Any]]:
    """The folder, how its images were sampled, and by whom, as far as that is written beside them."""
    settings = {**judging, "images_per_prompt": len(folder.numbers)}
    made = read_protocol(folder.path)
    if made is None:
        return folder, Protocol.of_images(**settings), {}
    protocol = Protocol(**{**made["sampling"], **settings})
    negatives = made.get("negatives", [])
    if len(negatives) == len(folder.prompts):
        pairs = zip(folder.prompts, negatives, strict=True)
        folder = replace(folder, prompts=[replace(p, negative=n) for p, n in pairs])
    return folder, protocol, dict(made.get("about", {}))


def identity(model: str) -> dict[str, Any]:
    """Which weights a name stands for now: a run's newest checkpoint moves on while it trains."""
    if run := run_of(model):
        reader = RunReader(run[0])
        steps = reader.checkpoints()
        return {
            "step": run[1] or (steps[-1] if steps else None),
            "run_started": reader.status().started,
        }
    written = [p.stat().st_mtime_ns for p in Path(model).rglob("*.safetensors")]
    return {"written": max(written)} if written else {}


def trained_on(model: str, prompts: Sequence[Prompt]) -> str:
    """A warning if a run was trained on some of the prompts, or if nobody knows; "" if it was not."""
    run = run_of(model)
    if run is None:
        return ""
    try:
        trained = load_prompt_set(parse_config(RunReader(run[0]).config()))
    except UserError as error:
        return f"nobody knows whether {run[0]} was trained on these prompts: {error}"
    common, held = overlap(prompts, trained), len({prompt.text for prompt in prompts})
    if not common:
        return ""
    return (
        f"{len(common)} of {held} prompts are among those that {run[0]} was trained on, such as {common[0]!r}:"
        " the scores say nothing about others"
    )


def evaluation_name(prompts: str, model: str, protocol: Protocol) -> str:
    """Prompts, guidance, temperature, seed, the step that was asked for, and a mark of all that is unusual."""
    run = run_of(model)
    step = f"-step{run[1]}" if run and run[1] is not None else ""
    settings = f"cfg{protocol.cfg_scale:g}-t{protocol.temperature:g}-seed{protocol.seed}"
    named = ("cfg_scale", "temperature", "seed")
    return f"{prompts}-{settings}{step}{_mark(protocol, named)}"


def folder_name(images: Path, protocol: Protocol) -> str:
    """The folder's own name, the detector, and a mark of all that is unusual about the judging."""
    name = f"{images.resolve().name}-{re.sub(r'[^A-Za-z0-9_.-]', '.', protocol.detector)}"
    return name + _mark(protocol, ("detector", *SAMPLING))


def _mark(protocol: Protocol, named: Sequence[str]) -> str:
    """Six digits that differ where settings differ which the rest of a name does not tell; none if all are usual."""
    named = (*named, "images_per_prompt", "batch_size")
    unusual = defaults({k: v for k, v in protocol.to_dict().items() if k not in named})
    digest = hashlib.sha256(json.dumps(unusual, sort_keys=True).encode()).hexdigest()
    return f"-{digest[:6]}" if unusual else ""


def place_of(model: str | None, name: str, out: Path | None) -> Path | None:
    """The JSON file to write; None where there is no place for it."""
    if out is not None:
        return out / f"{name}.json"
    run = run_of(model) if model else None
    return evaluation_path(run[0] / "evaluations", name) if run else None


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    rows = [[p.text, p.negative, dict(p.spec or {})] for p in prompts]
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def stamp() -> dict[str, Any]:
    return {"t2i_credit": __version__, "date": datetime.now(UTC).isoformat(timespec="seconds")}
