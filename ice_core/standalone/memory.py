"""Memory of the C library that is kept instead of handed back."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of mallopt, from glibc's malloc.h."""
_NEVER = -1


def keep_freed_memory() -> bool:
    """Have the C library keep what this process frees, for its next use. Whether it can: glibc does.

    The backward pass through a wide convolution takes 60 to 120 MB for a moment. glibc asks the system for
    that much anew each time, page by page, and hands it back: in training steps of Stable Diffusion 1 on a
    processor, a tenth of their time. What is kept counts towards the process until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # Both: a block that is mapped by itself is unmapped when freed, whatever the threshold.
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))
