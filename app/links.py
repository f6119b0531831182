"""What a form says in the page's address: each field by a name of its own, as far as it differs from the form's beginning. Values
from there are texts of anybody: a field takes what it could have been set to by hand, and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import gradio as gr

from .components import QUIET

LONGEST = 4000  # letters of one value; see address.js
LARGEST = 2**53  # what a number field of a browser holds exactly


def keep(fields: Mapping[str, Any], always: tuple[str, ...] = ()) -> None:
    """What is changed by hand goes to the address.

    Args:
        fields: {name in the address: component}.
        always: names that are written whatever their value; a beginning that depends on the run is none.
    """
    first = {name: None if name in always else field.value for name, field in fields.items()}
    told = f"(...values) => (window.t2i?.address.form({json.dumps(first)}, values), [])"
    for field in fields.values():
        changed = field.change if isinstance(field, gr.Textbox) else field.input
        changed(None, list(fields.values()), None, js=told, **QUIET)


def restored(
    fields: Mapping[str, Any], address: object, offered: Mapping[str, list[str]]
) -> dict[Any, Any]:
    """{component: update} of what an address says and a field takes.

    Args:
        fields: {name in the address: component}.
        address: {name: text}.
        offered: {name: what a list that is filled later will offer}; of a name that is missing here, its own choices.
    """
    found: dict[Any, Any] = {}
    for name, field in fields.items():
        text = address.get(name) if isinstance(address, Mapping) else None
        if isinstance(text, str) and len(text) <= LONGEST:
            value = _value(field, text, offered.get(name))
            if value is not None:
                found[field] = _update(field, value)
    return found


def _value(field: Any, text: str, offered: list[str] | None) -> Any:
    """What a field makes of a text; None if it cannot be set to it."""
    if isinstance(field, gr.Slider | gr.Number):
        try:
            number = float(text)
        except ValueError:
            return None
        least = -LARGEST if field.minimum is None else field.minimum
        most = LARGEST if field.maximum is None else field.maximum
        if not (math.isfinite(number) and least <= number <= most):
            return None
        return int(number) if number.is_integer() else number
    if isinstance(field, gr.Textbox):
        return text
    choices = {str(value): value for _, value in field.choices}
    choices |= {value: value for value in offered or ()}
    if not getattr(field, "multiselect", False):
        return choices.get(text)
    chosen = [choices[one] for one in map(unquote, text.split(",")) if one in choices]
    return list(dict.fromkeys(chosen)) or None


def _update(field: Any, value: Any) -> Any:
    """Sets a field; a list offers what it is set to at once, and the rest when it is filled."""
    if not isinstance(field, gr.Dropdown):
        return type(field)(value=value)
    known = {choice: label for label, choice in field.choices}
    names = value if isinstance(value, list) else [value]
    more = [(name, name) for name in names if name not in known]
    return gr.Dropdown(choices=[*field.choices, *more], value=value, multiselect=field.multiselect)
