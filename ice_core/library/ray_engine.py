"""Who works on the pictures of a batch on many machines: Ray, from the extra `comfyui-ice[ray]`.

Plain actors rather than Ray Data: an outcome has to be in the library as soon as it is there, a picture that
takes its worker down must cost that picture and no other, and a block of several pictures that Ray Data tries
anew would cost all of them. Pictures and results travel as bytes, so that machines need share no disk; a
checkpoint has to lie at the same path on each.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ice_core.errors import IceError
from ice_core.library.batch import Job, Outcome, Worker
from ice_core.library.engines import attempt

ATTEMPTS = 2
"""Workers that a picture may take down: the first may have died of something else."""


class _Actor:
    """A process of the cluster with its model."""

    def open(self, open_worker: Callable[[], Worker]) -> str:
        """Load the model -> why that failed, empty when it did not."""
        try:
            self.worker = open_worker()
        except IceError as error:
            return str(error)
        return ""

    def run(self, name: str, picture: bytes) -> tuple[bytes | None, str, float, int]:
        return (*attempt(self.worker, name, picture), os.getpid())


@dataclass(frozen=True)
class RayEngine:
    """address: of a cluster, "auto" for the one that this machine belongs to, empty to start one here.

    workers: processes with a model each; 0 for one per GPU of the cluster, or one per machine where there is
    none. threads: cores that each holds; gpus: that each holds, below 1 to share one; None for 1 where there
    are enough.
    """

    address: str = ""
    workers: int = 0
    threads: int = 1
    gpus: float | None = None

    def outcomes(self, jobs: Sequence[Job], open_worker: Callable[[], Worker]) -> Iterator[Outcome]:
        """Raises IceError without Ray, without the cluster, and where no worker can open its model."""
        ray = _import_ray()
        ours = not ray.is_initialized()
        if ours:
            _connect(ray, self.address)
        try:
            yield from self._outcomes(ray, jobs, open_worker)
        finally:
            if ours:
                ray.shutdown()

    def _outcomes(
        self, ray: Any, jobs: Sequence[Job], open_worker: Callable[[], Worker]
    ) -> Iterator[Outcome]:
        number, gpus = self._share(ray)
        kind = ray.remote(num_cpus=self.threads, num_gpus=gpus, max_restarts=0)(_Actor)
        opening = ray.put(open_worker)
        waiting = deque(jobs)
        deaths: Counter[str] = Counter()
        busy: dict[Any, tuple[Any, Job | None]] = {}

        def start() -> None:
            actor = kind.remote()
            busy[actor.open.remote(opening)] = (actor, None)

        try:
            for _ in range(min(number, len(jobs))):
                start()
            # Those that still open their model when all is done are not waited for.
            while waiting or any(job is not None for _, job in busy.values()):
                (ready,), _ = ray.wait(list(busy), num_returns=1)
                actor, job = busy.pop(ready)
                try:
                    answer = ray.get(ready)
                except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError) as error:
                    if job is None:
                        raise IceError(f"a worker died while it opened its model: {_line(error)}") from error
                    deaths[job.key] += 1
                    if deaths[job.key] < ATTEMPTS:
                        waiting.append(job)
                    else:
                        yield Outcome(job, None, f"its worker died {ATTEMPTS} times: {_line(error)}", 0.0, 0)
                    if waiting:
                        start()
                    continue
                if job is None and answer:
                    raise IceError(answer)
                if job is not None:
                    yield Outcome(job, *answer)
                given = False
                while waiting and not given:
                    job = waiting.popleft()
                    try:
                        busy[actor.run.remote(job.name, job.content())] = (actor, job)
                        given = True
                    except IceError as unreadable:
                        yield Outcome(job, None, str(unreadable), 0.0, 0)
                if not given:
                    ray.kill(actor)
        finally:
            for actor, _ in busy.values():
                ray.kill(actor)

    def _share(self, ray: Any) -> tuple[int, float]:
        """How many workers, and GPUs for each. Raises IceError for more than the cluster has."""
        there = ray.cluster_resources()
        machines = sum(node["Alive"] for node in ray.nodes())
        number = self.workers or int(there.get("GPU", 0)) or machines
        gpus = self.gpus if self.gpus is not None else float(there.get("GPU", 0) >= number)
        room = math.floor(there.get("CPU", 0) / self.threads)
        if gpus:
            room = min(room, math.floor(there.get("GPU", 0) / gpus))
        if number > room:
            raise IceError(
                f"{number} workers of {self.threads} threads and {gpus:g} GPUs are more than the cluster has "
                f"room for ({room}); give --workers {max(room, 1)}, or fewer --threads"
            )
        return number, gpus


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise IceError("--engine ray needs Ray: python -m pip install 'comfyui-ice[ray]'") from error
    return ray


def _connect(ray: Any, address: str) -> None:
    """Join a cluster, or start one in this machine."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level="warning")
        else:
            here = {"include_dashboard": False, "log_to_driver": False, "logging_level": "warning"}
            ray.init(address="local", **here)
    # Ray raises plain exceptions too, such as for a node that takes too long to start.
    except Exception as error:
        what = f"no Ray cluster answers at {address!r}" if address else "no Ray cluster could be started here"
        raise IceError(f"{what}: {_line(error)}; try again, or use --engine local") from error
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            # Ray takes SIGTERM for itself, and would end the process before anything is kept.
            signal.signal(signal.SIGTERM, before)


def _line(error: BaseException) -> str:
    """The beginning of what Ray says, on one line."""
    return " ".join(str(error).split())[:200]
