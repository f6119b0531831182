"""What the compare tab draws of the chosen runs: their curves, bars of their evaluations, a table of what differs, and the
same prompt under each. Reads run folders; lays out nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ..errors import RunError, UserError
from ..heatmap.sample import Scale, common_scale
from ..heatmap.text import printable
from ..run_folder.reader import RunReader
from . import components
from .figures import Metrics, comparison_figure, number, task_bars
from .methods import Method, differences, line_styles, methods_of, seed_of
from .payload import plain, sample_payload, scale_payload, view_of
from .runs import Recorded, RunShelf, in_words, mean_in_words
from .texts import is_text

PER_RUN = 6  # samples of the same prompt
MOST_ROWS = 40  # of the table of differences
UNFOLDED = 10  # rows of it that need not be folded away
MOST_CURVES, LOOKED_AT_LINES = (
    300,
    200,
)  # names of metrics that are offered; lines that are searched for them
UNIT = Scale(
    credit=2.0, contrast=1.0, advantage=1.0
)  # which the browser stretches over a difference
METRICS = {
    "reward": "mean reward of the step's samples",
    "reward_spread": "standard deviation of the reward within a group",
    "entropy": "nats per token",
    "answer_length": "runs on text: tokens of an answer, its end token included",
    "truncated": "runs on text: share of answers cut off at the longest length allowed",
    "diversity": "share of positions where two images of a prompt differ",
    "signed_contrast": "mean of log p(prompt) − log p(negative), nats",
    "kl": "to the frozen reference, nats per token",
    "time/step": "seconds of a step",
}


def curves_value(
    shelf: RunShelf, readers: Sequence[RunReader], metric: str, axis: str = "step", over: int = 0
) -> dict[str, Any]:
    """The chosen curve, and bars for each evaluation that these runs have; `said`: which runs cannot be read, and why;
    `told`: which have no such curve."""
    methods = methods_of(readers)
    styles = line_styles(methods)
    curves: dict[str, Sequence[Metrics]] = {}
    evaluations: dict[str, dict[str, Any]] = {}
    kinds: dict[str, str] = {}
    troubles, without = [], []
    for method in methods:
        seeds = []
        for reader in method.seeds:
            try:
                metrics = shelf.metrics(reader)
            except RunError as error:
                troubles.append(in_words(error))
                continue
            there = any(row.get(metric) is not None for row in metrics)
            seeds += [metrics] if there else []
            without += [] if there else [reader.path.name]
        if seeds:
            curves[method.name] = seeds
        for name, scores in method.evaluations().items():
            evaluations.setdefault(name, {})[method.name] = scores
            kinds[name] = "answers" if is_text(method.seeds[0]) else "images"
    title = f"{printable(metric).replace('_', ' ').replace('/', ': ')}".capitalize()
    says = METRICS.get(metric, "as in metrics.jsonl")
    drawn = comparison_figure(curves, metric, title, says, styles=styles, axis=axis, over=over)
    figures = [drawn]
    colours = {name: style["color"] for name, style in styles.items()}
    for name, by_method in evaluations.items():
        says = "with 95% intervals: over prompts, of several seeds over seeds"
        bars = task_bars(by_method, says, colours)
        bars["layout"] |= {"height": 250}
        figures.append({**bars, "title": f"Correct {kinds[name]}: {name}", "wide": False})
    told = f"Without this curve so far: {', '.join(without)}." if without and curves else ""
    said = "; ".join(troubles)
    return plain({"figures": figures, "said": said, "told": told, "sent": time.time()})


def curve_names(shelf: RunShelf, readers: Sequence[RunReader]) -> list[str]:
    """The metrics that one of the runs has, those of `METRICS` first."""
    found: dict[str, None] = {}
    for reader in readers:
        try:
            metrics = shelf.metrics(reader)
        except RunError:
            continue  # the chart says why
        for row in [*metrics[:: max(1, len(metrics) // LOOKED_AT_LINES)], *metrics[-1:]]:
            found |= dict.fromkeys(name for name, value in row.items() if number(value) == value)
    known = [name for name in METRICS if name in found]
    rest = sorted(name for name in found if name not in METRICS and name != "step")
    return [*known, *rest][:MOST_CURVES] or list(METRICS)


def difference_table(readers: Sequence[RunReader]) -> str:
    """What differs between the methods' configurations, as a small table."""
    methods = methods_of(readers)
    if not methods:
        return ""
    title, rows = "<h2>What differs in their configurations</h2>", differences(methods)
    if len(methods) == 1:
        says = "One run is chosen." if len(methods[0].seeds) == 1 else "Nothing but the seed."
        return f'<div class="differs">{title}<p>{says}</p></div>'
    styles = line_styles(methods)
    heads = "".join(
        f'<th scope="col"><i class="swatch" style="background:{styles[m.name]["color"]}"></i>{escape(m.name)}</th>'
        for m in methods
    )
    seeds = [", ".join(str(seed_of(reader)) for reader in method.seeds) for method in methods]
    shown = [
        *list(rows.items())[:MOST_ROWS],
        *([("train.seed", seeds)] if len(set(seeds)) > 1 else []),
    ]
    body = "".join(
        f'<tr><th scope="row">{escape(printable(key)).replace(".", ".<wbr>")}</th>'
        + "".join(f"<td>{escape(value) or '–'}</td>" for value in values)
        + "</tr>"
        for key, values in shown
    )
    more = len(rows) - MOST_ROWS
    rest = f"<p>{more} more keys differ: see the runs' config.yaml.</p>" if more > 0 else ""
    table = f'<table><thead><tr><th scope="col">key</th>{heads}</tr></thead><tbody>{body}</tbody></table>'
    table = f'<div class="table">{table}</div>{rest}'
    if len(rows) > UNFOLDED:
        says = f"{len(rows)} keys: {', '.join(map(escape, sorted({printable(key.split('.')[0]) for key in rows})))}"
        table = f"<details><summary>{says}</summary>{table}</details>"
    return f'<div class="differs">{title}{table}</div>'


def common_steps(readers: Sequence[RunReader]) -> list[int]:
    """The steps that all of these runs have recorded; runs without any do not count."""
    recorded = [set(steps) for reader in readers if (steps := reader.steps())]
    return sorted(set.intersection(*recorded)) if recorded else []


def common_prompts(
    shelf: RunShelf, readers: Sequence[RunReader], step: int | None = None
) -> list[str]:
    """Prompts that most runs have in common at a step (None: the newest of each), probes first, those with most to see
    first."""
    counts: dict[str, tuple[int, bool, float]] = {}
    for reader in readers:
        try:
            groups = _recorded(shelf, reader, step)
        except UserError:
            continue
        for group in {g.prompt: g for g in groups}.values():
            count, probe, spread = counts.get(group.prompt, (0, False, 0.0))
            counts[group.prompt] = count + 1, probe or group.probe, spread + group.spread
    return sorted(counts, key=lambda p: (-counts[p][0], not counts[p][1], -counts[p][2]))


def pictures_value(
    shelf: RunShelf,
    readers: Sequence[RunReader],
    prompt: str | None,
    step: int | None = None,
    steps: Sequence[int] = (),
) -> dict[str, Any]:
    """A row per method, of its first seed: the first samples of the prompt at one recorded step, one scale.

    Args:
        shelf, readers: the runs; those on text have no pictures, and colours of their own.
        prompt: which one.
        step: None = the newest of each.
        steps: those to choose from.
    """
    if prompt is None:
        return components.note(
            "No prompt in common", "These runs have not recorded a prompt that can be compared."
        )
    every = methods_of(readers)
    styles = line_styles(every)
    methods = [method for method in every if not is_text(method.seeds[0])]
    rows: list[dict[str, Any]] = []
    views, told, pushed, probe = [], _other_seeds(methods), True, True
    for method in methods:
        reader = method.seeds[0]
        try:
            group = next((g for g in _recorded(shelf, reader, step) if g.prompt == prompt), None)
            if group is None:
                at = "" if step is None else f" at step {step}"
                told.append(f"{reader.path.name} has not recorded this prompt{at}")
                continue
            record = reader.step(step)
            found = [(place, view_of(record, place)) for place in group.places[:PER_RUN]]
        except UserError as error:
            told.append(in_words(error))
            continue
        views += [view for _, view in found]
        pushed &= common_scale([view for _, view in found]).advantage > 0
        probe &= group.probe
        many = group.many
        first = f"first {len(found)} of {many} samples · " if many > len(found) else ""
        mean = mean_in_words(group.rewards)
        rows.append(
            {
                "prompt": reader.path.name,
                "says": f"step {record.step}, seed {seed_of(reader)} · {first}mean reward {mean}",
                "grid": list(record.grid),
                "seed": seed_of(reader),
                "colour": styles[method.name]["color"],
                "samples": [sample_payload(record, place, view) for place, view in found],
            }
        )
    if not rows:
        return components.note("Nothing to compare", "; ".join(told))
    scale = scale_payload(common_scale(views))
    rows = [{**row, "scale": scale} for row in rows]
    told = [f"Not shown: {'; '.join(told)}."] if told else []
    if step is None and len(rows) > 1:
        told.insert(0, "They have no recorded step in common: each is shown at its newest.")
    key = f"{prompt}:{[(row['prompt'], row['says']) for row in rows]}"
    return plain(
        {
            "groups": rows,
            "unit": scale_payload(UNIT),
            # where one group is all alike nothing is pushed, and its row of token advantages would be blank
            "map": "token_advantages" if pushed else "credit",
            "key": key,
            "asked": prompt,
            "probe": probe,
            "step": step,
            "steps": list(steps),
            "told": " ".join(told),
        }
    )


def _recorded(shelf: RunShelf, reader: RunReader, step: int | None) -> list[Recorded]:
    """The groups of a run at a step (None: its newest); [] where it has not recorded it."""
    steps = reader.steps()
    at = step if step is not None else next(iter(steps[-1:]), None)
    return shelf.recorded(reader, at) if at in steps else []


def _other_seeds(methods: Sequence[Method]) -> list[str]:
    """Which seeds have no row of their own."""
    return [
        f"{', '.join(r.path.name for r in method.seeds[1:])} (further seeds of {method.seeds[0].path.name})"
        for method in methods
        if len(method.seeds) > 1
    ]


def evaluation_times(reader: RunReader) -> Mapping[str, int]:
    """{evaluation: when its scores were written, in nanoseconds}."""
    found = {}
    for name in reader.evaluations():
        try:
            found[name] = (reader.path / "evaluations" / f"{name}.json").stat().st_mtime_ns
        except OSError:
            continue
    return found
