"""Workers of a batch that need no model, nor torch: a picture's content says what becomes of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from ice_core.errors import IceError
from ice_core.library.batch import Worker

SPECIAL = {"bad": "nothing was found", "odd": "ValueError: odd"}
"""Content of a picture -> the error that comes of it. "poison" is the end of the worker."""


def pictures_in(folder: Path, content: Mapping[str, str]) -> Path:
    """A folder with these files. Content that is nothing special is the title of a concept set, and the file
    is that set, which comes back as it is."""
    for name, text in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if text in (*SPECIAL, "poison") else _set(text, folder))
    return folder


def _set(title: str, folder: Path) -> bytes:
    # Workers import this module, and need not wait for torch.
    from concept_sets import concept_set

    from ice_core.files.concept_set import save_concept_set

    file = save_concept_set(concept_set(title=title), folder / "set.safetensors")
    try:
        return file.read_bytes()
    finally:
        file.unlink()


def open_worker() -> Worker:
    return work


def open_slow_worker() -> Worker:
    def slow(name: str, picture: bytes) -> bytes:
        time.sleep(0.3)
        return work(name, picture)

    return slow


def open_nothing() -> Worker:
    raise IceError("the model is not there")


def work(name: str, picture: bytes) -> bytes:
    if picture == b"poison":
        os.kill(os.getpid(), signal.SIGKILL)
    if picture == b"odd":
        raise ValueError("odd")
    if picture == b"bad":
        raise IceError("nothing was found")
    return picture
