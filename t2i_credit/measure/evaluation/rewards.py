"""Images judged by rewards in place of a detector: who judges, what is kept of an image, means with intervals.

Shapes: P prompts, N images, prompt by prompt. A missing image has no reward, and is left out of all means.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...api.parts import build_reward
from ...config.files import key_value
from ...config.schema import parse_config
from ...errors import ConfigError
from ...interfaces import Prompt
from ...rollout.images import from_uint8
from ...yaml_text import parse_yaml
from ..intervals import mean_interval, or_none

Rewards = dict[str, dict[str, Any]]  # {name: what its builder takes}
# images (N, h, w, 3) uint8, all of one size, and their prompts to {reward: (N) values}
Score = Callable[[NDArray[np.uint8], Sequence[Prompt]], Mapping[str, Sequence[float]]]
Check = Callable[[Sequence[Prompt]], list[str]]
Rows = Sequence[Sequence[Mapping[str, Any]]]  # (P) the records of each prompt's images


def parse_rewards(given: Sequence[str]) -> Rewards:
    """{name: parameters} of "clip", "clip.scale=logit" and the like; a parameter names its reward, too.

    Raises:
        UserError: neither a name nor name.parameter=value.
    """
    found: Rewards = {}
    for text in given:
        key, value = key_value(text)
        name, parameter = key, ""
        if value is not None:
            name, _, parameter = key.rpartition(".")
        if not name.strip() or (value is not None and not parameter):
            raise ConfigError(f"--reward {text!r}: allowed are NAME and NAME.PARAMETER=VALUE")
        if parameter in ("weight", "normalize", "heldout"):
            raise ConfigError(
                f"--reward {text!r}: {parameter} is for training; an evaluation tells every reward by itself"
            )
        parameters = found.setdefault(name, {})
        if value is not None:
            if parameter in parameters:
                raise ConfigError(f"--reward {text!r}: {parameter} of {name} is given twice")
            where = f"--reward {text!r}"
            parameters[parameter] = parse_yaml(value.encode(), where, lines=False)
    return found


def load_rewards(rewards: Rewards) -> tuple[Score, Check]:
    """Who judges, and what says which prompts it does not read as they are.

    Raises:
        UserError: an unknown reward or parameter, or weights that cannot be loaded.
    """
    reward = build_reward(parse_config({"reward": rewards}))

    def score(images: NDArray[np.uint8], prompts: Sequence[Prompt]) -> dict[str, list[float]]:
        _, parts = reward(from_uint8(list(images)), prompts)
        return {name: values.tolist() for name, values in parts.items()}

    return score, reward.check


def reward_record(
    name: str, prompt: Prompt, values: Mapping[str, float], fault: str
) -> dict[str, Any]:
    """What is kept of an image; see `Evaluation.records`."""
    spec = prompt.spec or {}
    return {
        "filename": name,
        "tag": spec.get("tag", "text"),
        "prompt": prompt.text,
        "rewards": dict(values),
        "metadata": json.dumps({**spec, "prompt": prompt.text}),
        "fault": fault,
    }


def reward_names(rows: Rows) -> list[str]:
    """The rewards that these images have, in the order in which they were asked for."""
    return list(dict.fromkeys(name for records in rows for r in records for name in r["rewards"]))


def prompt_rewards(rows: Rows, name: str) -> NDArray[np.float64]:
    """(P) means of a reward over each prompt's images; nan where there is none."""
    return np.array([np.mean(values) if values else np.nan for values in _values(rows, name)])


def reward_summary(rows: Rows) -> dict[str, dict[str, Any]]:
    """Every reward in figures.

    Returns:
        {reward: mean over prompts, low and high (its 95% t-interval over prompts), best (mean over prompts of the best
        of a prompt's images), prompts and images: how many have one, missing: images that are not there}; None where
        nothing is known.
    """
    missing = sum(bool(record["fault"]) for records in rows for record in records)
    found = {}
    for name in reward_names(rows):
        values = [one for one in _values(rows, name) if one]
        mean, low, high = map(or_none, mean_interval(prompt_rewards(rows, name)))
        found[name] = {
            "mean": mean,
            "low": low,
            "high": high,
            "best": float(np.mean([max(one) for one in values])),
            "prompts": len(values),
            "images": sum(map(len, values)),
            "missing": missing,
        }
    return found


def reward_changes(before: Rows, after: Rows) -> dict[str, dict[str, float | None]]:
    """What changed over the prompts that both have images of, the same prompts in the same order.

    Returns:
        {reward of both: before and after, change = after - before, low and high: its 95% t-interval over prompts}.
    """
    found = {}
    theirs = reward_names(before)
    for name in (name for name in reward_names(after) if name in theirs):
        first, second = prompt_rewards(before, name), prompt_rewards(after, name)
        both = np.isfinite(first) & np.isfinite(second)
        means = [float(part[both].mean()) if both.any() else np.nan for part in (first, second)]
        scale = float(np.nanmax(np.abs([*first, *second]))) if both.any() else 0.0
        values = (*means, *mean_interval(second - first, scale))
        names = ("before", "after", "change", "low", "high")
        found[name] = dict(zip(names, map(or_none, values), strict=True))
    return found


def _values(rows: Rows, name: str) -> list[list[float]]:
    """(P) the rewards of each prompt's images that have one."""
    return [[r["rewards"][name] for r in records if name in r["rewards"]] for records in rows]
