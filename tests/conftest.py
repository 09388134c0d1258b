"""Two processes share the tests, file by file: each starts hosts of its own, and has half of the cores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HOST = Path(__file__).parent / "host"
_SHARED = ("demo_run",)
"""Fixtures that take minutes: the files that use one go to the same process."""

if "PYTEST_XDIST_WORKER" in os.environ:
    _cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    _threads = max(1, _cores // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    # Before torch is imported, and for the processes that tests start.
    os.environ.setdefault("OMP_NUM_THREADS", str(_threads))


# First, before xdist takes down who belongs together.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    shared: dict[Path, str] = {}
    for item in items:
        if HOST in item.path.parents:
            item.add_marker(pytest.mark.host)
        for name in _SHARED:
            if name in getattr(item, "fixturenames", ()):
                shared[item.path] = name
    for item in items:
        item.add_marker(pytest.mark.xdist_group(shared.get(item.path, str(item.path))))
    # What takes longest comes first, so that neither process waits for the other in the end.
    items.sort(key=lambda item: HOST not in item.path.parents)
