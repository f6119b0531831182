"""Golden references of the embedded world: a scene that fulfils a prompt, drawn afresh. Encodes nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..interfaces import Prompt
from .grammar import draw, is_held_out
from .scene import render


def reference(prompt: Prompt, seed: int) -> NDArray[np.uint8] | None:
    """An image (SIZE, SIZE, 3) that fulfils the prompt's record and shows nothing else.

    None for a prompt without a record, and for held-out compositions, which are never drawn.
    """
    if prompt.spec is None or is_held_out(dict(prompt.spec)):
        return None
    return render(draw(dict(prompt.spec), np.random.default_rng(seed)))[0]
