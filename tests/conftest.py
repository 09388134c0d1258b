"""Two processes share the tests, file by file: each starts hosts of its own, and has half of the cores."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

TESTS = Path(__file__).parent
HOST = TESTS / "host"
_SHARED = ("demo_run",)
"""Fixtures that take minutes: the files that use one go to the same process."""

if "PYTEST_XDIST_WORKER" in os.environ:
    _cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    _threads = max(1, _cores // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    # Before torch is imported, and for the processes that tests start.
    os.environ.setdefault("OMP_NUM_THREADS", str(_threads))


@cache
def _group(file: str) -> str:
    """What goes to one process with the tests of a file, whose path is relative to the project."""
    text = (TESTS.parent / file).read_text(encoding="utf-8")
    return next((name for name in _SHARED if re.search(rf"\b{name}\b", text)), file)


class Together(LoadFileScheduling):
    """Whole files, and with a file those that share a long fixture with it.

    xdist's own groups (`xdist_group`) are lost with a pytest whose test ids can no longer be changed.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid.split("::", 1)[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HOST in item.path.parents:
            item.add_marker(pytest.mark.host)
    # What takes longest comes first, so that neither process waits for the other in the end.
    items.sort(key=lambda item: HOST not in item.path.parents)
