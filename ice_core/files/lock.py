"""A folder belongs to one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ice_core.errors import IceError

LOCK = ".lock"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep every other process from claiming a folder, which is made, until the context is left.

    The operating system holds the lock, so that a crash leaves none behind. What was made and stayed empty
    goes again. Raises IceError when the folder is claimed already, or cannot be written.
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    # The stream of a run may be asked for events by one thread after the other.
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise IceError(
            f"another run is at work in {folder}; wait for its end, or choose another folder with --out"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise IceError(f"cannot write to {folder}: {reason}; choose another folder with --out") from error
    try:
        yield
    finally:
        # While it is held: nobody can have claimed the folder by this file yet.
        with suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()
        with suppress(OSError):
            for path in made:
                path.rmdir()
