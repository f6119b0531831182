"""The application that the commands register with, and the arguments that several of them take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, CallbackParam, Exit, Option, Typer

from .. import __version__
from ..errors import UserError
from ..prompts.written import expanded

app = Typer(
    name="t2i-credit",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(param: CallbackParam, asked: bool) -> None:
    if asked:
        print(f"t2i-credit {__version__}")
        raise Exit


@app.callback()
def options(
    version: Annotated[
        bool, Option("--version", help="print the version", callback=_version, is_eager=True)
    ] = False,
    verbose: Annotated[
        bool,
        Option(
            "--verbose",
            help="show what libraries say, too; anywhere on the line, or T2I_CREDIT_VERBOSE=1",
        ),
    ] = False,
) -> None:
    """Reinforcement learning for image-token generators, with credit for every token."""
    # main.py has read it: libraries are told before they are imported


def local(param: CallbackParam, given: Any) -> Any:
    """The callback of what may be a path: `~` and variables, which a shell leaves alone behind a "=" and in quotes."""
    if isinstance(given, list):
        return [local(param, each) for each in given]
    try:
        if isinstance(given, os.PathLike):
            return Path(expanded(os.fspath(given)))
        return given and expanded(given)
    except UserError as error:
        name = param.opts[-1]
        raise UserError(f"{name if name.startswith('-') else name.upper()}: {error}") from None


def path_option(meaning: str) -> Any:
    """An option whose value may be a path."""
    return Option(help=meaning, callback=local)


ConfigArg = Annotated[str, Argument(metavar="CONFIG", help="a YAML file, or a recipe's name")]
Overrides = Annotated[
    list[str] | None, Argument(metavar="[KEY=VALUE]...", help="such as optim.lr=3e-4")
]
ModelArg = Annotated[
    str,
    Argument(
        metavar="MODEL",
        help="shapes, a model folder, a hub id, or a run (run@STEP)",
        callback=local,
    ),
]
