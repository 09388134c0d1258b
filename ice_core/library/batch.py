"""Folders of pictures into a library: what is missing is extracted, what fails is told and left out.

Who does the work is an engine's business (`engines.py`, `ray_engine.py`): each picture goes to a worker as
its file's content, and comes back as a concept set, or as a reason why there is none. Nothing of a result
depends on the engine, on the number of workers or on the order in which they end.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ice_core.errors import IceError
from ice_core.library.store import Library

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Job:
    """One picture. name: relative to the folder; key: of the picture's content and what is done with it, the
    same for the same result."""

    name: str
    path: Path
    key: str

    def content(self) -> bytes:
        """The picture's file. Raises IceError when it cannot be read."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise IceError(f"cannot read the picture {self.name}: {error.strerror or error}") from error


@dataclass(frozen=True)
class Outcome:
    """What became of a job: the content of a concept set, or an error. seconds: of the worker; process: its
    number, on whatever machine."""

    job: Job
    content: bytes | None
    error: str
    seconds: float
    process: int


Worker = Callable[[str, bytes], bytes]
"""Name and content of a picture file -> the content of its concept set. Raises IceError where that fails."""


class Engine(Protocol):
    """Who works on the pictures."""

    def outcomes(self, jobs: Sequence[Job], open_worker: Callable[[], Worker]) -> Iterator[Outcome]:
        """One outcome per job, as they come. open_worker: makes a worker, once per process that works."""


@dataclass(frozen=True)
class Filed:
    """A picture is done: ids of its concepts in the library, or the error that left it out. before: it was
    there already. done, total: of the pictures that were to be done."""

    job: Job
    ids: tuple[int, ...]
    error: str
    seconds: float
    before: bool
    done: int
    total: int
    process: int = 0


def jobs_in(folder: Path, recipe: str) -> tuple[Job, ...]:
    """The pictures of a folder and of those in it, by name. recipe: says all that a result depends on.

    Raises IceError for a folder without pictures.
    """
    if not folder.is_dir():
        raise IceError(f"there is no folder {folder}; give one with pictures")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if not paths:
        raise IceError(f"no pictures in {folder}; there must be PNG, JPEG, WebP, BMP or TIFF files")
    return tuple(Job(path.relative_to(folder).as_posix(), path, _key(path, recipe)) for path in paths)


def _key(path: Path, recipe: str) -> str:
    """Of the content; of a file that cannot be read, which will be told when its turn comes, of the path."""
    digest = hashlib.sha256(recipe.encode())
    try:
        digest.update(path.read_bytes())
    except OSError:
        digest.update(b"path " + os.fsencode(path.absolute()))
    return digest.hexdigest()


def run_batch(
    library: Library,
    jobs: Sequence[Job],
    engine: Engine,
    open_worker: Callable[[], Worker],
    tags: Sequence[str] = (),
) -> Iterator[Filed]:
    """Do what is missing; one `Filed` per picture, those that were there first.

    A set is in the library for good before its `Filed` comes: what is stopped goes on where it was. Raises
    IceError where no worker can be had.
    """
    missing = []
    for job in jobs:
        if (ids := library.finished(job.key)) is not None:
            yield Filed(job, ids, "", 0.0, True, 0, 0)
        else:
            missing.append(job)
    if not missing:
        return
    for done, outcome in enumerate(engine.outcomes(missing, open_worker), 1):
        ids, error = _filed(library, outcome, tags)
        yield Filed(outcome.job, ids, error, outcome.seconds, False, done, len(missing), outcome.process)


def _filed(library: Library, outcome: Outcome, tags: Sequence[str]) -> tuple[tuple[int, ...], str]:
    """Ids in the library, or why there are none."""
    from ice_core.files.concept_set import load_concept_set

    if outcome.content is None:
        return (), outcome.error
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "concepts.safetensors"
        file.write_bytes(outcome.content)
        saved = load_concept_set(file)
    return library.add(saved, str(outcome.job.path), tags, outcome.job.key), ""
