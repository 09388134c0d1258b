"""Where files go, and how they get there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ice_core.errors import IceError
from ice_core.files.names import check_name, is_text, parts_of


def atomic_write(path: Path, data: bytes | str) -> Path:
    """Write a file so that a crash leaves the old one or the new one, never half of one.

    The bytes (text as UTF-8) go to a temporary file in the same folder, reach the disk, and take the
    name in one step. Returns `path`. Raises IceError when the folder cannot be written.
    """
    path = Path(path)
    data = data.encode() if isinstance(data, str) else data
    # The name's own length is not added to: it may be as long as the disk takes.
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise IceError(f"cannot write {path}: {reason}; choose another folder") from error
        raise
    return path


def write_json(path: Path, plain: Any) -> Path:
    """Write plain data as readable JSON, whole or not at all.

    Lone surrogates, as in a file's name that is not UTF-8, become JSON's escapes and come back as they were.
    """
    text = json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
    return atomic_write(path, text.encode("utf-8", "backslashreplace"))


def safe_path(folder: Path, name: str) -> Path:
    """`folder / name`, or IceError when that would leave the folder or could not be typed in a prompt.

    Refused: what `check_name` refuses, and links that lead out of the folder. Subfolders ("ice/ball_color")
    are fine.
    """
    check_name(name)
    path = Path(folder, *parts_of(name))
    try:
        inside = path.resolve().is_relative_to(Path(folder).resolve())
    except (OSError, RuntimeError) as error:
        raise IceError(f"cannot follow the name {name!r} in {folder}: {error}") from error
    if not inside:
        raise IceError(f"the name {name!r} leads out of {folder} through a link; remove the link")
    return path


def free_path(path: Path) -> Path:
    """`path` itself, or the first of "name-2.png", "name-3.png", ... that does not exist yet.

    Raises IceError when there can be no file of such a name.
    """
    path = Path(path)
    candidate, n = path, 1
    while _is_there(candidate):
        n += 1
        candidate = path.with_name(f"{path.stem}-{n}{path.suffix}")
    return candidate


def free_folder(path: Path, names: Sequence[str], taken: Sequence[Path] = ()) -> Path:
    """`path` (made absolute), or the first of "path-2", "path-3", ... that could be written to freely.

    That is a folder that has none of `names`, and is none of `taken`. Raises IceError when there can be no
    folder of such a name.
    """
    path = _followed(path)
    candidate, n = path, 1
    while candidate in taken or any(_is_there(candidate / name) for name in names):
        n += 1
        candidate = path.with_name(f"{path.name}-{n}")
    return candidate


def check_writable(folder: Path) -> None:
    """Raise IceError unless files could be written to the folder, which need not exist; it is not made."""
    existing = _followed(folder)
    while not _is_there(existing) and existing != existing.parent:
        existing = existing.parent
    try:
        # Permission bits do not tell for shares, containers and full disks: only writing does.
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".ice-"):
            pass
    except OSError as error:
        raise _cannot_write(folder, error) from error


def check_tensor_folder(folder: Path) -> None:
    """Raise IceError unless safetensors files could be written to the folder, and read from it again."""
    check_writable(folder)
    if not is_text(str(_followed(folder))):
        raise IceError(
            f"the folder {str(folder)!r} has a name that is not UTF-8, which safetensors cannot open; "
            "choose another folder with --out"
        )


def _followed(path: Path) -> Path:
    """Absolute and without links; IceError for links that lead in a circle."""
    try:
        return Path(path).resolve(strict=False)
    except (OSError, RuntimeError) as error:
        raise _cannot_write(path, error) from error


def _is_there(path: Path) -> bool:
    """Whether there is anything of this name, a broken link too; IceError for a name that cannot be."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _cannot_write(path, error) from error
    return True


def _cannot_write(path: Path, error: OSError | RuntimeError) -> IceError:
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return IceError(f"cannot write to {path}: {reason}; choose another folder with --out")
