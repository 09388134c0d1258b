"""Workers of a batch that need no model: a picture's content says what becomes of it."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from concept_sets import concept_set

from ice_core.errors import IceError
from ice_core.files.concept_set import save_concept_set
from ice_core.library.batch import Worker

PICTURES = {f"{n}.png": b"%d" % n for n in range(6)} | {"bad.png": b"bad", "odd.png": b"odd"}
"""Name -> content; of "bad" an IceError comes, of "odd" another error, of "poison" the worker's end."""


def pictures_in(folder: Path, content: Mapping[str, bytes] = PICTURES) -> Path:
    """A folder with these files."""
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


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
    with tempfile.TemporaryDirectory() as scratch:
        return save_concept_set(concept_set(title=name), Path(scratch) / "set.safetensors").read_bytes()
