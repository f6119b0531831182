"""The protocol of an evaluation: how its images were sampled and how they are judged, and what the evaluation is called by it.
Samples and judges nothing."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...api.models import run_of
from ...config.files import key_value
from ...errors import UserError
from ...yaml_text import parse_yaml

SAMPLING = ("cfg_scale", "temperature", "top_k", "top_p", "template", "seed")
JUDGING = (
    "detector",
    "threshold",
    "counting_threshold",
    "max_objects",
    "nms_threshold",
    "position_threshold",
)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (_is_integer(value) or isinstance(value, float)) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


_ALLOWED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "images_per_prompt": ("an integer of at least 1", lambda v: _is_integer(v) and v >= 1),
    "cfg_scale": ("a number of at least 1", lambda v: _is_number(v) and v >= 1),
    "temperature": ("a number above 0", lambda v: _is_number(v) and v > 0),
    "top_k": ("an integer, 0 (off) or more", lambda v: _is_integer(v) and v >= 0),
    "top_p": ("a number above 0, at most 1 (off)", lambda v: _is_number(v) and 0 < v <= 1),
    "template": (
        "a text that holds {prompt} once",
        lambda v: isinstance(v, str) and v.count("{prompt}") == 1,
    ),
    "seed": ("an integer, 0 to 2**63 - 1", lambda v: _is_integer(v) and 0 <= v < 2**63),
    "batch_size": ("an integer of at least 1", lambda v: _is_integer(v) and v >= 1),
    "detector": ("a name", lambda v: isinstance(v, str) and bool(v)),
    "threshold": ("a number, 0 to 1", _is_share),
    "counting_threshold": ("a number, 0 to 1", _is_share),
    "max_objects": ("an integer of at least 1", lambda v: _is_integer(v) and v >= 1),
    "nms_threshold": ("null (off) or a number, 0 to 1", lambda v: v is None or _is_share(v)),
    "position_threshold": ("a number of at least 0", lambda v: _is_number(v) and v >= 0),
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How an evaluation samples and judges. All but `batch_size` decide about its scores.

    Of images that come from elsewhere nobody may know how they were sampled: then all of SAMPLING is None. Of results that do,
    nobody knows how they were judged: then all of JUDGING is None, too, as it is where rewards judge.

    Attributes:
        images_per_prompt: G, the k of pass@k; of most prompts, where they have different numbers.
        cfg_scale: guidance scale, 1 = none.
        temperature, top_k, top_p: after guidance; top_k 0 and top_p 1 = no truncation.
        template: what the generator reads, with the prompt's text in place of {prompt}.
        seed: from 0; evaluations of one seed draw the same noise and can be paired.
        batch_size: samples per forward pass, and images per call of the detector.
        detector: who finds the objects.
        threshold, counting_threshold, max_objects, nms_threshold, position_threshold: see `geneval.judge`.
        rewards: {name: parameters} of the rewards that judge in place of a detector.

    Raises:
        UserError: a setting out of range.
    """

    images_per_prompt: int = 4
    cfg_scale: float | None
    temperature: float | None = 1.0
    top_k: int | None = 0
    top_p: float | None = 1.0
    template: str | None = "{prompt}"
    seed: int | None = 0
    batch_size: int = 64
    detector: str | None = "shapes"
    threshold: float | None = 0.3
    counting_threshold: float | None = 0.9
    max_objects: int | None = 16
    nms_threshold: float | None = None
    position_threshold: float | None = 0.1
    rewards: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        unknown = self._unknown()
        for name, (allowed, fits) in _ALLOWED.items():
            if name not in unknown and not fits(getattr(self, name)):
                raise UserError(f"{name}: {getattr(self, name)!r}; allowed is {allowed}")

    @classmethod
    def of_images(cls, **settings: Any) -> Protocol:
        """The protocol of images of unknown origin; `settings` are all the others."""
        return cls(**{**dict.fromkeys(SAMPLING), **settings})

    @classmethod
    def of_results(cls) -> Protocol:
        """The protocol of results of unknown origin."""
        return cls.of_images(**dict.fromkeys(JUDGING))

    def _unknown(self) -> set[str]:
        """The settings that nobody knows."""
        parts = (SAMPLING, JUDGING)
        return {n for part in parts if all(getattr(self, m) is None for m in part) for n in part}

    def to_dict(self) -> dict[str, Any]:
        """{setting: value}; without `rewards` where a detector judges."""
        found = asdict(self)
        return found if self.rewards else {k: v for k, v in found.items() if k != "rewards"}

    def judges(self) -> str:
        """Who judges, such as "clip (scale logit), aesthetic"."""
        told = []
        for name, parameters in (self.rewards or {"a detector": {}}).items():
            given = ", ".join(f"{key} {value}" for key, value in parameters.items())
            told.append(f"{name} ({given})" if given else name)
        return ", ".join(told)

    def sampling(self) -> dict[str, Any]:
        """The settings that decide about the images."""
        return {name: getattr(self, name) for name in SAMPLING}

    def judging(self) -> dict[str, Any]:
        """The thresholds, as `geneval.judge` takes them."""
        return {name: getattr(self, name) for name in JUDGING if name != "detector"}

    def difference(self, other: Protocol) -> str:
        """The first setting by which scores of the two cannot be compared, as "seed is 0 before and 1 after"; "" if
        there is none. What is unknown of one of them does not count."""
        if (self.rewards or {}) != (other.rewards or {}):
            first, second = (p.judges() for p in (self, other))
            return f"judged by {first} before and {second} after"
        theirs, unknown = other.to_dict(), self._unknown() | other._unknown()
        for name, value in self.to_dict().items():
            if name not in ("batch_size", *unknown) and value != theirs[name]:
                return f"{name} is {value} before and {theirs[name]} after"
        return ""


def parse_settings(given: list[str]) -> dict[str, Any]:
    """{setting: value} of "threshold=0.5" and the like, for `Protocol`.

    Raises:
        UserError: not key=value, or an unknown key.
    """
    known = [field.name for field in fields(Protocol) if field.name != "rewards"]
    found: dict[str, Any] = {}
    for text in given:
        key, value = key_value(text)
        if value is None or key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; allowed are {', '.join(known)}"
            raise UserError(f"--protocol {text!r}: not a setting of the protocol=value{hint}")
        where = f"--protocol {text!r}"
        template = key == "template"
        found[key] = value if template else parse_yaml(value.encode(), where, lines=False)
    return found


def defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that are not the default ones."""
    usual = {field.name: field.default for field in fields(Protocol)}
    return {name: value for name, value in settings.items() if value != usual[name]}


def evaluation_name(prompts: str, model: str, protocol: Protocol) -> str:
    """Prompts, guidance, temperature, seed, the step that was asked for, and a mark of all that is unusual."""
    run = run_of(model)
    step = f"-step{run[1]}" if run and run[1] is not None else ""
    settings = f"cfg{protocol.cfg_scale:g}-t{protocol.temperature:g}-seed{protocol.seed}"
    named = ("cfg_scale", "temperature", "seed")
    by = f"-{_by(protocol)}" if protocol.rewards else ""
    return f"{_short(prompts)}{by}-{settings}{step}{_mark(protocol, named)}"


def folder_name(images: Path, protocol: Protocol) -> str:
    """The folder's own name, the detector or the rewards, and a mark of all that is unusual about the judging."""
    name = f"{_short(images.resolve().name)}-{_by(protocol)}"
    return name + _mark(protocol, ("detector", *SAMPLING))


def _by(protocol: Protocol) -> str:
    """Who judges, as part of a file name."""
    names = "+".join(protocol.rewards or [str(protocol.detector)])
    return _short(re.sub(r"[^A-Za-z0-9_.+-]", ".", names))


def _short(name: str) -> str:
    """A part of a file name that no file system finds too long."""
    return name if len(name) <= 60 else f"{name[:50]}-{digest(name)[:6]}"


def _mark(protocol: Protocol, named: Sequence[str]) -> str:
    """Six digits that differ where settings differ which the rest of a name does not tell; none if all are usual."""
    named = (*named, "images_per_prompt", "batch_size")
    if protocol.rewards is not None:
        told = all(not parameters for parameters in protocol.rewards.values())
        named = (*named, *JUDGING, *(["rewards"] if told else []))
    unusual = defaults({k: v for k, v in protocol.to_dict().items() if k not in named})
    return f"-{digest(unusual)[:6]}" if unusual else ""


def digest(value: Any) -> str:
    """SHA-256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
