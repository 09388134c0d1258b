"""Who works on the pictures of a batch when nothing more than this process is there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence

from ice_core.errors import IceError
from ice_core.library.batch import Job, Outcome, Worker


class LocalEngine:
    """One picture after the other, in this process."""

    def outcomes(self, jobs: Sequence[Job], open_worker: Callable[[], Worker]) -> Iterator[Outcome]:
        worker = open_worker()
        for job in jobs:
            try:
                picture = job.content()
            except IceError as error:
                yield Outcome(job, None, str(error), 0.0, os.getpid())
                continue
            yield Outcome(job, *attempt(worker, job.name, picture), os.getpid())


def attempt(worker: Worker, name: str, picture: bytes) -> tuple[bytes | None, str, float]:
    """A picture's concept set, or the error that it ended with, and the seconds that it took.

    Whatever a picture raises is its own: the next one may be fine.
    """
    began = time.perf_counter()
    try:
        content, error = worker(name, picture), ""
    except IceError as reason:
        content, error = None, str(reason)
    except Exception as reason:
        content, error = None, f"{type(reason).__name__}: {reason}"
    return content, error, time.perf_counter() - began
