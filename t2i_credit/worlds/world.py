"""The embedded worlds by name: what prompts, scenes, pictures and mistakes each of them has. Loads one when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PromptError
from ..geneval import Detection
from ..interfaces import Prompt
from ..prompts.records import TASKS, WORLDS
from .grammar import Grammar, Record
from .mistakes import Mistakes


@dataclass(frozen=True)
class World:
    """An embedded world.

    Attributes:
        name: as configurations and `t2i-credit pretrain` call it.
        about: what its pictures show.
        grammar: its prompts.
        mistakes: its noisy captions.
        draw: a held-in record and randomness to a scene that fulfils it.
        render: a scene to its image (h, w, 3) uint8 and the masks (N, h, w) bool of its objects.
        crowd: randomness to a scene of more things than a prompt has, for the image tokenizer; None = it learns from
            `draw` alone.
    """

    name: str
    about: str
    grammar: Grammar
    mistakes: Mistakes
    draw: Callable[[Record, np.random.Generator], Any]
    render: Callable[[Any], tuple[NDArray[np.uint8], NDArray[np.bool_]]]
    crowd: Callable[[np.random.Generator], Any] | None = None

    def detect(
        self, images: NDArray, specs: object = None, *, masks: bool = False
    ) -> list[dict[str, list[Detection]]]:
        """Finds the objects of images (N, h, w, 3); see the `detect` of the world."""
        detector = import_module(f".{self.name}.detector", __package__)
        found: list[dict[str, list[Detection]]] = detector.detect(images, specs, masks=masks)
        return found

    def reference(self, prompt: Prompt, seed: int) -> NDArray[np.uint8] | None:
        """An image (h, w, 3) uint8 that fulfils the prompt's record and shows nothing else.

        None for a prompt without a record, and for held-out compositions, which are never drawn.
        """
        if prompt.spec is None or self.grammar.is_held_out(dict(prompt.spec)):
            return None
        return self.render(self.draw(dict(prompt.spec), np.random.default_rng(seed)))[0]

    def evaluation_prompts(self, split: str, per_task: int) -> list[Prompt]:
        """`per_task` prompts of each task that the split has, always the same ones."""
        tasks = [task for task in TASKS if self.grammar.records(task, split)]
        return self.grammar.prompt_set(split, tasks, per_task=per_task, seed=1)

    def sample(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """A picture for the image tokenizer, (h, w, 3) uint8: of a held-in record, half of them of a crowd if there are."""
        if self.crowd is not None and rng.random() < 0.5:
            return self.render(self.crowd(rng))[0]
        return self.render(self.draw(self.grammar.sample_record(rng), rng))[0]


def find_world(name: str) -> World:
    """The world of a name.

    Raises:
        PromptError: there is no such world.
    """
    if name == "shapes":
        from .shapes import grammar as shapes
        from .shapes.mistakes import MISTAKES as of_shapes
        from .shapes.scene import render as render_shapes

        return World(name, "coloured shapes", shapes.GRAMMAR, of_shapes, shapes.draw, render_shapes)
    if name == "things":
        from .things import grammar as things
        from .things.mistakes import MISTAKES as of_things
        from .things.scene import render as render_things

        return World(
            name,
            "drawn things",
            things.GRAMMAR,
            of_things,
            things.draw,
            render_things,
            things.crowd,
        )
    raise PromptError(f"world {name!r} is not known; known: {', '.join(WORLDS)}")


def known_prompt(text: str) -> tuple[World, Prompt] | None:
    """The world whose prompt a text is, and the prompt with its record; None if it is none's."""
    for name in WORLDS:
        world = find_world(name)
        if prompt := world.grammar.known(text):
            return world, prompt
    return None
