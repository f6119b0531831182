"""Files and folders that appear whole or not at all: a temporary name, fsync, rename. Knows no
layout; what the disk refuses becomes a RunError."""

from __future__ import annotations

import io
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError

from ..errors import RunError, one_line


def write_atomic(path: Path | str, content: bytes) -> None:
    """Writes a file under a temporary name in the same folder, then renames it: other processes see
    the old file or the new one. Raises RunError (path and reason) and leaves nothing behind when
    the disk refuses."""
    path = Path(path)
    temporary = _temporary(path)
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot("written", path, error) from error
        raise


def write_json(path: Path | str, value: Any) -> None:
    """`write_atomic` of JSON. Tensors and arrays become lists, non-finite numbers null (JSON has
    none)."""
    write_atomic(path, json_bytes(value, indent=1) + b"\n")


@contextmanager
def write_folder_atomic(path: Path | str, *, replace: bool = True) -> Iterator[Path]:
    """`with write_folder_atomic(path) as folder:` fill `folder`; at the end it is synced and
    renamed to `path`.

    Args:
        path: the folder to make; its parents are made too.
        replace: an older folder of that name gives way (otherwise only an empty one does).

    Raises:
        RunError: the disk refuses; as after any other error in the block, nothing of the new folder
            is left.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for folder, _, files in os.walk(temporary, topdown=False):
            for name in files:
                _sync(_readable(Path(folder, name)))
            _sync(Path(folder))
        _swap(temporary, path, replace)
        _sync(path.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError | SafetensorError):
            raise cannot("written", path, error) from error
        if isinstance(error, RunError):  # of a file in it: name it as it would have been called
            raise RunError(str(error).replace(str(temporary), str(path))) from error
        raise


def _readable(path: Path) -> Path:
    """The file with the permissions that a new file has here: safetensors lets only the owner read its files."""
    # a folder's bits follow the umask, a temporary one's too
    path.chmod(path.parent.stat().st_mode & 0o666)
    return path


def make_folder(path: Path) -> None:
    """Makes a folder and those around it, if they are not there.

    Raises:
        RunError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot("written", path, error) from error


def json_bytes(value: Any, indent: int | None = None) -> bytes:
    """JSON of one line, or indented; see `write_json`."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=indent).encode()


def cannot(done: str, path: Path, error: Exception) -> RunError:
    """`raise cannot("written", path, error) from error`: one line with the path and the reason."""
    reason = getattr(error, "strerror", None) or one_line(error) or type(error).__name__
    if isinstance(error, json.JSONDecodeError):
        reason = f"damaged, not JSON ({error.msg}, line {error.lineno}, column {error.colno})"
    elif isinstance(error, UnicodeDecodeError):
        reason = "damaged, not a text (UTF-8)"
    elif isinstance(error, SafetensorError) and (system := re.search(r"os error (\d+)", reason)):
        reason = os.strerror(int(system[1]))
    elif isinstance(error, SafetensorError):
        reason = f"damaged, not a whole .safetensors file ({reason})"
    elif isinstance(error, UnidentifiedImageError):
        reason = "damaged, not an image"
    return RunError(f"{path}: cannot be {done}: {one_line(reason)}")


def _temporary(path: Path) -> Path:
    return path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _swap(temporary: Path, path: Path, replace: bool) -> None:
    if not (replace and path.exists()):
        os.rename(temporary, path)
        return
    old = _temporary(path)
    os.rename(path, old)
    try:
        os.rename(temporary, path)
    except OSError:
        os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened, and a read-only file not flushed
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # tensors and numpy, scalars included
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def write_png(path: Path, picture: Image.Image) -> None:
    """Writes a picture, whole or not at all.

    Raises:
        RunError: the disk refuses.
    """
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())
