"""Starts the app's server: on this machine alone unless told otherwise, and then with a login. Builds no page."""

from __future__ import annotations

import errno
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .address import link_of

if TYPE_CHECKING:
    from .trainings import Trainings

BESIDE_VARIABLE = "T2I_CREDIT_APP_BESIDE"  # number of the process that the app is not to outlive
PORT = 7860
LOGIN_VARIABLE = "T2I_CREDIT_LOGIN"
SPIN_VARIABLE = "GOMP_SPINCOUNT"  # see cli/runs.py; the app gives way to a training, and not a training of its own
PRELOAD_AFTER = 8.0  # seconds
LOOK_EVERY = 1.0  # seconds between two looks at the training that the app runs beside


def start(
    runs: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    login: str | None = None,
    trainings: Trainings | None = None,
    preload: bool = False,
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> Any:
    """Starts serving a runs folder in the background.

    Args:
        runs: a folder of runs, or one run; it may still be missing.
        host: an address of this machine; any but a loopback one demands a login.
        port: 1 to 65535; 0 = any that is free.
        login: NAME:PASSWORD; None = what $T2I_CREDIT_LOGIN says, if it is set.
        trainings: what starts trainings from the page, on a loopback address alone; None = nobody may.
        preload: loads the embedded generator in the background, so that a first sample need not wait for it.
        warn: called with a line about a login that failed.

    Returns:
        The Gradio page: `.local_url` is its address, `.close()` ends it.

    Raises:
        UserError: the port is in use, a login is missing or is no login, `runs` is a file, or trainings are not allowed there.
    """
    login = os.environ.get(LOGIN_VARIABLE) if login is None else login
    account = check_login(host, login)
    root = Path(runs)
    if root.exists() and not root.is_dir():
        raise UserError(f"{root}: not a folder of runs")
    if trainings is not None:
        check_training(host, root)
    port = free_port(host, port)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # Gradio remembers 10,000 events and makes a table of them with pandas after each one, for a page that is off here
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(2**62))
    # uvicorn would take a visitor's address from a header that anybody on this machine can write
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "")
    from starlette.middleware import Middleware
    from starlette.requests import cookie_parser

    from ..rewards.connections import end_silent
    from .exports import export
    from .guard import Doorman
    from .page import build_page
    from .reports import read_report
    from .runs import RunShelf
    from .studio import Studio
    from .theme import css, head, theme

    shelf = RunShelf(root)
    studio = Studio(shelf)
    page = build_page(shelf, trainings, studio)

    def known(scope: Any) -> bool:
        cookies = cookie_parser(dict(scope["headers"]).get(b"cookie", b"").decode("latin-1"))
        names = (
            f"access-token-{page.app.cookie_id}",
            f"access-token-unsecure-{page.app.cookie_id}",
        )
        return any(cookies.get(name) in page.app.tokens for name in names)

    events = {number: len(event.inputs) for number, event in page.fns.items()}

    def report(run: str, evaluation: str) -> bytes:
        return read_report(shelf.open(run), evaluation)

    handing: dict[str, Any] = {"report": report, "export": partial(export, shelf)}
    handing["ended"] = lambda: page.app.stop_event.is_set()  # which `close` sets first

    door = {"our_name": None, "known": known} if account else {"our_name": is_loopback}
    try:
        page.queue(max_size=64, default_concurrency_limit=2, api_open=False)
        page.launch(
            server_name=host,
            server_port=port,
            auth=account,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            inline=False,
            show_error=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            max_file_size=1,
            state_session_capacity=100,
            # a login's cookie stays away from a foreign page, whatever name that gives this machine
            app_kwargs={
                "middleware": [Middleware(Doorman, say=warn, events=events, **handing, **door)]
            },
            theme=theme(),
            css=css(),
            head=head(),
        )
    except OSError as error:
        raise UserError(f"{host}:{port}: cannot be served: {error.strerror or error}") from error
    _drop_sharing(page.app)
    end_silent(page.server)
    if preload:  # not before the first page is there, from which it would take the time
        begins = threading.Timer(PRELOAD_AFTER, studio.warm_up)
        begins.daemon = True
        begins.start()
    return page


def _drop_sharing(app: Any) -> None:
    """Takes Gradio's own middleware away that lets pages of other origins read answers; it stands before the door."""
    app.user_middleware = [m for m in app.user_middleware if "CORS" not in m.cls.__name__]
    app.middleware_stack = app.build_middleware_stack()


def serve(
    runs: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    login: str | None = None,
    allow_training: bool = False,
    opened: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """`start`, and wait until interrupted, or until the process that `app_beside` belongs to is gone.

    Args:
        runs, host, port, login: see `start`.
        allow_training: whether trainings may be started from the page; the one that goes on is stopped at the end.
        opened: what a browser is opened at, as `link_of` takes it; None = no browser is opened.
        say: called with a line that tells the address.
    """
    from ..run_folder.status import alive

    link = None if opened is None else link_of(opened)
    trainings = None
    if allow_training:
        check_training(host, Path(runs))
        from .trainings import Trainings

        trainings = Trainings(runs, without=(LOGIN_VARIABLE, BESIDE_VARIABLE, SPIN_VARIABLE))
    beside = os.environ.get(BESIDE_VARIABLE)
    asked: dict[str, Any] = {"host": host, "port": port, "login": login, "trainings": trainings}
    page = start(runs, **asked, preload=beside is None)  # a training needs the machine for itself
    ends = "; Ctrl-C ends it" if trainings is None else "; Ctrl-C ends it and a training of it"
    say(f"t2i-credit app: {page.local_url}{link or ''}   (runs in {Path(runs)}{ends})")
    if link is not None:
        webbrowser.open(f"{page.local_url}{link}")
    with suppress(KeyboardInterrupt), interrupted_by(signal.SIGTERM, signal.SIGHUP):
        while beside is None or alive(int(beside)):
            time.sleep(LOOK_EVERY)
    page.close(verbose=False)
    if trainings is not None:
        trainings.close(say)


@contextmanager
def interrupted_by(*numbers: int) -> Iterator[None]:
    """Takes these signals as Ctrl-C, unless they are ignored."""
    before = {number: signal.getsignal(number) for number in numbers}
    kept = {number: take for number, take in before.items() if take is not signal.SIG_IGN}
    try:
        for number in kept:
            signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number, take in kept.items():
            signal.signal(number, take)


def check_login(host: str, login: str | None) -> tuple[str, str] | None:
    """(name, password), or None where none is needed.

    Raises:
        UserError: it is needed and missing, or is not NAME:PASSWORD.
    """
    if login is None:
        if is_loopback(host):
            return None
        raise UserError(
            f"--host {host}: others can reach this address, so it needs a login: "
            f"--login NAME:PASSWORD, or set {LOGIN_VARIABLE}"
        )
    name, colon, password = login.partition(":")
    if not (name and colon and len(password) >= 8):
        raise UserError("--login: must be NAME:PASSWORD, with a password of at least 8 letters")
    return name, password


def check_training(host: str, root: Path) -> None:
    """Refuses trainings from the page where others could start them, or where runs would lie in a run.

    Raises:
        UserError: the address is no loopback one, or `root` is one run.
    """
    if not is_loopback(host):
        raise UserError(
            f"--allow-training: only on this machine, and others can reach --host {host}"
        )
    if (root / "environment.json").is_file():
        raise UserError(f"--allow-training: {root} is one run; give the folder that it lies in")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free_port(host: str, port: int) -> int:
    """The port, or a free one for 0.

    Raises:
        UserError: it is in use, or is no port of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OverflowError:
            raise UserError(f"--port: {port} is not allowed; 0 to 65535 is") from None
        except OSError as error:
            if port and error.errno == errno.EADDRINUSE:
                raise UserError(f"--port: {port} is in use; choose another one") from None
            raise UserError(f"{host}:{port}: cannot be served: {error.strerror}") from None
        return int(probe.getsockname()[1])


@contextmanager
def app_beside(runs: str, *, wanted: bool) -> Iterator[None]:
    """The app in a process of its own while something else goes on, so that neither slows or ends the other."""
    if not wanted:
        yield
        return
    port = str(PORT if _is_free(PORT) else 0)
    command = [sys.executable, "-m", "t2i_credit.cli", "app", str(runs), "--port", port]
    # a process that is killed cannot end its children: the app looks for itself
    process = subprocess.Popen(command, env={**os.environ, BESIDE_VARIABLE: str(os.getpid())})
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _is_free(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) != 0
