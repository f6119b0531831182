"""Samples for the playground: loads generators when first asked, reports every token, can be stopped in mid-image. The one
place of the app that loads a model; knows no page.

Shapes: B samples, T = H*W image tokens in raster order.
"""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..errors import UserError
from ..models import embedded_names
from .checkpoints import EMBEDDED, address, beginning, choices
from .fresh import USUAL, FreshStep, Method, fresh_step, known_prompt, prepare, shown
from .payload import picture_url, plain
from .runs import RunShelf, in_words

if TYPE_CHECKING:
    from ..interfaces import Prompt, Rollout

KEPT_MODELS = 2
MOST_SAMPLES = 16
LONGEST_PROMPT = 2000  # letters; a model's own limit comes earlier, and says so
PREVIEWS = 8  # of a forming picture at most


class Cancelled(Exception):
    """The visitor asked to stop."""


@dataclass(frozen=True)
class Take:
    """One row of images: a model, a prompt, its negative (None = the null prompt) and a title."""

    model: str
    prompt: str
    negative: str | None
    title: str


@dataclass(frozen=True)
class Settings:
    """How to sample, and which credit to show, the same for every take."""

    cfg_scale: float
    temperature: float
    seed: int
    count: int
    credit: str = USUAL


@dataclass(frozen=True)
class Progress:
    """What the page shows: share done (0..1), a line, a group value for the browser, whether it is over; at the end
    what was sampled, for downloads."""

    share: float
    says: str
    value: dict[str, Any] | None = None
    over: bool = False
    failed: bool = False
    steps: tuple[FreshStep, ...] = ()


CANCELLED = Progress(0.0, "Cancelled.", over=True)


class Watched:
    """A generator whose every token is reported, and which stops when asked."""

    capturable = False  # a replayed step would report nothing

    def __init__(
        self, model: Any, stop: threading.Event, report: Callable[[Sequence[Any]], None]
    ) -> None:
        self._model, self._stop, self._report = model, stop, report
        self._tokens: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def advance(self, state: Any, tokens: Any) -> Any:
        """One decoding step of the generator."""
        if self._stop.is_set():
            raise Cancelled
        if tokens is not None:
            self._tokens.append(tokens)
            self._report(self._tokens)
        return self._model.advance(state, tokens)


class Studio:
    """Loads generators and samples from them, one visitor at a time (the page's queue sees to that)."""

    def __init__(self, shelf: RunShelf) -> None:
        self.shelf = shelf
        self._models: OrderedDict[str, Any] = OrderedDict()
        self._loading = threading.Lock()

    def choices(self) -> list[tuple[str, str]]:
        """(label, name) of what can be loaded; see `checkpoints.choices`."""
        return choices(self.shelf)

    def warm_up(self, name: str = EMBEDDED) -> threading.Thread:
        """Loads a generator in the background, so that the first sample need not wait for it."""

        def load() -> None:
            with suppress(UserError, OSError):  # the first sample will say it
                self.model(name)
                prepare()

        thread = threading.Thread(target=load, daemon=True)
        thread.start()
        return thread

    def model(self, name: str) -> Any:
        """A generator by its name in `choices`; a second caller waits while it is loaded.

        Raises:
            UserError: it is none of them, or cannot be loaded.
        """
        from ..api.models import load_model

        with self._loading:
            if name not in self._models:
                found = address(self.shelf, name)
                while len(self._models) >= KEPT_MODELS:  # before there is one more in memory
                    self._models.popitem(last=False)
                # the embedded one, and what was trained from it, is small, and a GPU may be that of a training
                small = beginning(self.shelf, name) in embedded_names()
                self._models[name] = load_model(found, device="cpu" if small else None)
            self._models.move_to_end(name)
            return self._models[name]

    def reference(self, name: str) -> Any:
        """What a credit compares a generator with: the one that its run began with, or itself.

        Raises:
            UserError: that is none of `choices`.
        """
        from ..api.models import run_of

        if name in embedded_names():
            return self.model(name)
        start = str(self.shelf.open(name.rpartition("@")[0]).config()["model"]["name"])
        if run := run_of(start):
            step = run[1] or max(self.shelf.open(run[0].name).checkpoints(), default=0)
            return self.model(f"{run[0].name}@{step}")
        if start not in embedded_names():
            raise UserError(f"{name} is compared with {start}, and no second such model is loaded")
        return self.model(start)

    def sample(
        self, takes: Sequence[Take], settings: Settings, stop: threading.Event
    ) -> Iterator[Progress]:
        """Samples every take on the same seeds; yields what the page shows, the finished pictures last."""
        told: queue.Queue[Progress] = queue.Queue()
        threading.Thread(
            target=self._work, args=(takes, settings, stop, told.put), daemon=True
        ).start()
        try:
            while True:
                progress = told.get()
                yield progress
                if progress.over:
                    return
        finally:
            stop.set()

    def _work(
        self,
        takes: Sequence[Take],
        settings: Settings,
        stop: threading.Event,
        tell: Callable[[Progress], None],
    ) -> None:
        from ..api.parts import unread_by

        try:
            check(takes, settings)
            how = (settings.cfg_scale, settings.temperature, settings.count)
            method = Method.of(settings.credit, *how)
            steps: list[FreshStep] = []
            remarks: list[str] = []
            for number, take in enumerate(takes):
                if stop.is_set():
                    raise Cancelled
                tell(Progress(number / len(takes), f"loading {take.model} …"))
                prompt, world = known_prompt(take.prompt, take.negative)
                judged = beginning(self.shelf, take.model) == world
                scores = method.require_reward(prompt, judged)
                model = self.model(take.model)
                remarks += unread_by(model, [prompt])

                def report(tokens: Sequence[Any], number: int = number, model: Any = model) -> None:
                    tell(forming(model, takes, number, tokens))

                rollout = drawn(Watched(model, stop, report), prompt, settings, method)
                other = self.reference(take.model) if method.compares else model
                step = fresh_step(model, other, rollout, method, scores=scores, number=number)
                steps.append(replace(step, title=take.title, seed=settings.seed))
            images = "1 image" if settings.count == 1 else f"{settings.count} images"
            each = " each" if len(takes) > 1 else ""
            says = f"{images}{each}, seed {settings.seed}"
            says = " · ".join([says, *dict.fromkeys(remarks)])
            value = plain(shown(steps, [take.title for take in takes]))
            tell(Progress(1.0, says, value, over=True, steps=tuple(steps)))
        except Cancelled:
            tell(CANCELLED)
        except UserError as error:
            tell(Progress(0.0, in_words(error), over=True, failed=True))
        except (
            Exception
        ) as error:  # a thread's error would vanish, and the page would wait for ever
            tell(Progress(0.0, in_words(error), over=True, failed=True))
            raise


def check(takes: Sequence[Take], settings: Settings) -> None:
    """Refuses what cannot be sampled, before a model is loaded.

    Raises:
        UserError: one line that says what is allowed.
    """
    for take in takes:
        if not take.prompt.strip():
            raise UserError("write a prompt first")
        for text in (take.prompt, take.negative or ""):
            if len(text) > LONGEST_PROMPT:
                raise UserError(f"this prompt has {len(text)} letters; at most {LONGEST_PROMPT}")
    if not 1 <= settings.count <= MOST_SAMPLES:
        raise UserError(f"images: {settings.count} is not allowed; 1 to {MOST_SAMPLES} are")
    if not 0 <= settings.seed < 2**63:
        raise UserError("seed: must be an integer, 0 to 2**63 - 1")


def drawn(model: Any, prompt: Prompt, settings: Settings, method: Method) -> Rollout:
    """Samples of one prompt, with what the credit reads."""
    from ..rollout.sampling import keeping, sample_rollout

    return sample_rollout(
        model,
        [prompt],
        group_size=settings.count,
        cfg_scale=settings.cfg_scale,
        temperature=settings.temperature,
        seed=settings.seed,
        **keeping(method.keeps),
    )


def forming(model: Any, takes: Sequence[Take], number: int, tokens: Sequence[Any]) -> Progress:
    """How far it is; now and then with the pictures as far as they are known."""
    rows, columns = model.grid
    share = (number + len(tokens) / (rows * columns)) / len(takes)
    says = f"{takes[number].title}: token {len(tokens)} of {rows * columns}"
    lines, rest = divmod(len(tokens), columns)
    if rest or lines % -(-rows // PREVIEWS):
        return Progress(share, says)
    import torch

    from ..rollout.images import to_uint8

    known = torch.stack(list(tokens), dim=1)
    blank = torch.zeros(len(known), rows * columns - known.shape[1], dtype=known.dtype)
    with torch.no_grad():
        images = to_uint8(model.decode(torch.cat([known, blank.to(known.device)], dim=1)).float())
    samples = [
        {
            "image": picture_url(Image.fromarray(image)),
            "pixels": [image.shape[1], image.shape[0]],
            "known": lines / rows,
        }
        for image in images
    ]
    group = {"prompt": takes[number].title, "says": says, "samples": samples, "large": True}
    value = {"groups": [group], "map": None, "key": f"{number}-{len(tokens)}-{id(tokens)}"}
    return Progress(share, says, value)
