"""The evaluations behind one command: the one asked for and the one it is compared with, kept as they are made and
written together. Knows no command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import api
from .evaluate import Detect, evaluate, evaluate_images
from .evaluation import Evaluation, check_pair, load_evaluation, paired
from .evaluation_journal import Journal
from .image_folder import (
    ImageFolder,
    clear_images,
    is_image_folder,
    read_folder,
    read_protocol,
    write_protocol,
)
from .interfaces import Prompt
from .judging_names import identity, prompts_digest, stamp
from .protocol import SAMPLING, Protocol
from .report import write_report
from .run_folder import RunWriter

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
        model = api.load_model(name)
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
