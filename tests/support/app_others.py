"""The likeliest other codes of a toy run of the app, added to its steps. Holds no test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from t2i_credit.run_folder.alternatives import write_alternatives
from t2i_credit.run_folder.reader import RunReader

K, S = 3, 4


def add_others(run: Path) -> Path:
    """K of each token of every recorded step, each patch in a colour of its own; the first sample's last token has none."""
    reader = RunReader(run)
    for step in reader.steps():
        record = reader.step(step)
        rows, columns = record.grid
        many = (len(record.samples), rows * columns, K)
        generator = np.random.default_rng(step)
        codes = generator.integers(0, record.codebook_size, many)
        codes[0, -1] = -1
        colours = generator.integers(0, 255, (many[0], K * rows, columns, 3), dtype=np.uint8)
        pictures = colours.repeat(S, 1).repeat(S, 2)
        logprobs = -np.sort(generator.random(many), axis=2)
        write_alternatives(record.folder, codes, logprobs, pictures)
    return run
