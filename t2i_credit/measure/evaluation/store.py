"""The evaluations behind one command: the one asked for and the one it is compared with, what they are called, where they
lie, what identifies them. They are kept as they are made and written together. Knows no command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ... import __version__
from ...api.models import load_model, run_of
from ...api.parts import load_prompt_set, unread_by, warn_of
from ...config.plugins import code_of
from ...config.schema import parse_config
from ...errors import UserError
from ...files import read_json
from ...interfaces import Prompt
from ...prompts.batches import overlap
from ...run_folder.journal import Journal
from ...run_folder.reader import RunReader
from .evaluate import Detect, Progress, Score, evaluate, evaluate_images
from .image_folder import ImageFolder, clear_images, is_image_folder, read_protocol, write_protocol
from .protocol import SAMPLING, Protocol, digest
from .report import write_report
from .results import load_results
from .scores import Evaluation, load_evaluation, match, paired, usual_size

Say = Callable[[str], None]
FILES = (".json", ".jsonl")  # of an evaluation, of GenEval's results


@dataclass(frozen=True)
class Report:
    """An evaluation, the one it is compared with, and where the first was written.

    Attributes:
        name: of the evaluation.
        evaluation, against: the one that was asked for, and the other, which counts as "before".
        changes: `paired` of both.
        path, page: the JSON and the HTML file.
        warnings: what a reader of the scores should know.
    """

    name: str
    evaluation: Evaluation
    against: Evaluation | None
    changes: dict[str, dict[str, float | None]] | None
    path: Path
    page: Path
    warnings: list[str]


@dataclass(frozen=True)
class Judges:
    """Who judges images, and what is said before about prompts that are not read as they are.

    Attributes:
        detect, score: see `evaluate`; one of them.
        check: prompts to lines for the user; raises UserError for those that cannot be judged.
    """

    detect: Detect | None
    score: Score | None
    check: Callable[[Sequence[Prompt]], Sequence[str] | None]


class Work:
    """Evaluations of one prompt set under one protocol, with the journals that are deleted when all is saved.

    Args:
        prompts, judges, protocol: see `evaluate`.
        path: the JSON file to write; images and journals go into the folder beside it.
        progress: (images done, of) over both evaluations.
        warn: called with lines that the user should read.
        look: finds the images in a folder that counts as "before".
        each: how many images most prompts will have; None = as the protocol says.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        judges: Judges,
        protocol: Protocol,
        path: Path,
        progress: Progress,
        warn: Say,
        look: Callable[[Path], ImageFolder],
        each: int | None = None,
    ) -> None:
        self.prompts, self.judges, self.protocol = prompts, judges, protocol
        self.look, self.each = look, each or protocol.images_per_prompt
        self.path, self.folder = path, path.with_suffix("")
        self.progress, self.warn = progress, warn
        self.warnings: list[str] = []
        self.journals: list[Journal] = []

    def tell(self, line: str) -> None:
        """Warns now, and in what is written."""
        self.warnings.append(line)
        self.warn(line)

    def report(
        self, against: str | None, evaluated: Callable[[Progress], Evaluation], images: Path | None
    ) -> Report:
        """Evaluates, writes everything, the JSON file last but for the page, and lets go of the journals.

        Args:
            against: what counts as "before" and is evaluated first, see `evaluate_model`.
            evaluated: makes the evaluation that is asked for.
            images: where its images lie, if that is known.

        Raises:
            UserError: the two cannot be paired, known before anything is sampled if "before" is there already.
        """
        parts = 2 if against and not against.endswith(FILES) else 1
        before, before_images, changes = None, None, None
        also: dict[str, Any] = {"warnings": self.warnings}
        if against:
            before, before_images = self._other(against, self._part(0, parts))
        after = evaluated(self._part(parts - 1, parts))
        if before:
            changes = paired(before, after)
            also |= {"paired": changes, "against": before.about}
        if after.protocol.rewards and not after.summary():
            raise UserError(f"no image can be judged: {after.faults()[0]}, and so are all others")
        if faults := after.faults():
            self.tell(_of_faults(after, faults))
        name = self.path.stem
        after.save(self.path.parent, name, also)
        page = write_report(
            self.path.with_suffix(".html"),
            name,
            after,
            images=images,
            before=before,
            before_images=before_images,
            changes=changes,
            warnings=self.warnings,
        )
        for journal in self.journals:
            journal.finish()
        return Report(name, after, before, changes, self.path, page, self.warnings)

    def model(
        self, name: str, folder: Path, about: dict[str, Any], progress: Progress
    ) -> Evaluation:
        """Samples and judges; images and journal go into `folder`."""
        model = load_model(name)
        template = self.protocol.template or "{prompt}"
        read = [replace(p, text=template.replace("{prompt}", p.text)) for p in self.prompts]
        warn_of(unread_by(model, read))
        journal = self._journal(folder, about, self.protocol)
        if not journal.found:
            clear_images(folder)
        sampling = self.protocol.sampling()
        negatives = [prompt.negative for prompt in self.prompts]
        write_protocol(folder, {"about": about, "sampling": sampling, "negatives": negatives})
        with _going_on(journal):
            found = evaluate(
                model,
                self.prompts,
                self.judges.detect,
                self.protocol,
                score=self.judges.score,
                progress=progress,
                folder=folder,
                journal=journal,
            )
        return replace(found, about={**about, **stamp()})

    def images(
        self,
        images: ImageFolder,
        protocol: Protocol,
        folder: Path,
        about: dict[str, Any],
        progress: Progress,
    ) -> Evaluation:
        """Judges; the journal goes into `folder`."""
        about = {**about, "images": str(images.path.resolve())}
        files = {"newest": images.newest(), "names": digest(images.names)}
        journal = self._journal(folder, {**about, **files}, protocol)
        with _going_on(journal):
            found = evaluate_images(
                images,
                self.judges.detect,
                protocol,
                score=self.judges.score,
                progress=progress,
                journal=journal,
            )
        return replace(found, about={**about, **stamp()})

    def _other(self, name: str, progress: Progress) -> tuple[Evaluation, Path]:
        """The evaluation that counts as "before", read, judged, or sampled and judged, and where its images lie."""
        folder = self.folder / "before"
        if name.endswith(FILES):
            results = name.endswith(".jsonl")
            found = load_results(name) if results else load_evaluation(name)
            self._check(found)
            if (
                None in (found.protocol.detector, self.protocol.detector)
                and not self.protocol.rewards
            ):
                unknown = name if found.protocol.detector is None else self.path.stem
                both = found.protocol.detector is self.protocol.detector is None
                alike = "alike" if both else "by this detector and its thresholds"
                which = "either" if both else unknown
                self.tell(f"nobody knows how {which} was judged: taken to be {alike}")
            return found, Path(found.about.get("images", Path(name).with_suffix("")))
        images = folder
        if is_image_folder(Path(name)):
            theirs = self.look(Path(name))
            judging = {k: v for k, v in self.protocol.to_dict().items() if k not in SAMPLING}
            theirs, protocol, about = origin_of(theirs, judging)
            found, images = self.images(theirs, protocol, folder, about, progress), theirs.path
            self._check(found)
        else:
            found = self.model(name, folder, {"model": name, **identity(name)}, progress)
        found.save(folder, "evaluation")
        return found, images

    def _check(self, before: Evaluation) -> None:
        """Raises UserError unless `before` can be paired with what is about to be evaluated."""
        asked = [({**(p.spec or {}), "prompt": p.text}, p.negative) for p in self.prompts]
        match(before, replace(self.protocol, images_per_prompt=self.each), asked)

    def _part(self, part: int, parts: int) -> Progress:
        """Progress of one of several parts of equal size, shown as progress of the whole."""
        return lambda done, of: self.progress(part * of + done, parts * of)

    def _journal(self, folder: Path, about: Mapping[str, Any], protocol: Protocol) -> Journal:
        settings = {k: v for k, v in protocol.to_dict().items() if k != "batch_size"}
        prompts = digest([[p.text, p.negative, dict(p.spec or {})] for p in self.prompts])
        judges = self.protocol.rewards or {str(self.protocol.detector): {}}
        header = {"about": about, "protocol": settings, "prompts": prompts, "code": code_of(judges)}
        journal = Journal(folder / "unfinished.jsonl", header, self.warn)
        self.journals.append(journal)
        return journal


@contextmanager
def _going_on(journal: Journal) -> Iterator[None]:
    """Says on Ctrl-C what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        done = sum(len(one.records) for one in journal.found)
        where = f"{journal.path.parent} keeps {done} judged images"
        raise KeyboardInterrupt(f"stopped; {where}, and the same command goes on there") from None


def _of_faults(found: Evaluation, faults: Sequence[str]) -> str:
    """A line about images that are missing or unreadable."""
    told = f"{', '.join(faults[:3])}{', ...' if len(faults) > 3 else ''}"
    count = f"{len(faults)} of {len(found.records)} images"
    if found.protocol.rewards:
        return f"missing or unreadable, left out: {count}: {told}"
    there = found.there()
    both = [e.summary()["overall"]["correct"] for e in (found, there) if e]
    without = f"; overall {both[0]:.3f}, and {both[1]:.3f} without them" if there else ""
    return f"missing or unreadable, judged as wrong: {count}: {told}{without}"


def origin_of(
    folder: ImageFolder, judging: Mapping[str, Any]
) -> tuple[ImageFolder, Protocol, dict[str, Any]]:
    """The folder, how its images were sampled, and by whom, as far as that is written beside them."""
    made = read_protocol(folder.path) or {}
    negatives = dict(enumerate(made.get("negatives", [])))
    if negatives.keys() >= set(folder.numbers):
        pairs = zip(folder.prompts, folder.numbers, strict=True)
        folder = replace(folder, prompts=[replace(p, negative=negatives[n]) for p, n in pairs])
    each = usual_size(folder.prompts, [len(names) for names in folder.names])
    settings = {**made.get("sampling", {}), **judging, "images_per_prompt": each}
    return folder, Protocol.of_images(**settings), dict(made.get("about", {}))


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
        f"{len(common)} of {held} prompts are among those that {run[0]} draws its prompts from, such as {common[0]!r}:"
        " the scores say nothing about others"
    )


def require_free(path: Path, about: Mapping[str, Any]) -> None:
    """Refuses to write over an evaluation of other prompts or images; one of the same is made anew.

    Args:
        path: the JSON file to write.
        about: of the evaluation that is to be made.

    Raises:
        UserError: another lies there, or its folder cannot be written.
    """
    for folder in path.parents:
        if folder.exists():
            if not folder.is_dir() or not os.access(folder, os.W_OK):
                raise UserError(
                    f"{path.parent}: cannot be written: {folder} is no folder to write in"
                )
            break
    try:
        known = read_json(path)["about"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if not isinstance(known, dict):
        return
    for key in ("prompts", "images", "results"):
        before, now = (str(one.get(key, "")) for one in (known, about))
        if key == "prompts" and os.path.isdir(before) | os.path.isdir(now):
            continue  # an image folder's own records, which a file may be beside
        if before != now and os.path.realpath(before) != os.path.realpath(now):
            raise UserError(
                f"{path}: is the evaluation of other {key}: {before or 'none'}, and not {now or 'none'};"
                " name another --out"
            )


def stamp() -> dict[str, Any]:
    return {"t2i_credit": __version__, "date": datetime.now(UTC).isoformat(timespec="seconds")}
