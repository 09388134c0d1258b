"""How far a piece of work raises the resident memory of its process. Linux only."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path

_PROCESS = Path("/proc/self")


def _status(name: str) -> int:
    """A figure of the process in bytes: VmRSS, resident now, or VmHWM, its peak."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", (_PROCESS / "status").read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def peak_above_before(work: Callable[[], None]) -> int | None:
    """Bytes by which the peak during `work` is above the level before; None where the system tells neither.

    The peak that getrusage tells is the process's since its start, or even its parent's: loading a model
    would hide what comes after.
    """
    if sys.platform != "linux":
        return None
    gc.collect()
    # What the allocator holds back of earlier work would be used again and not seen.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    before = _status("VmRSS")
    # 5: the peak counts from here on (proc_pid_clear_refs(5)).
    (_PROCESS / "clear_refs").write_text("5")
    work()
    return _status("VmHWM") - before
