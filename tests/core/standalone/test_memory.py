"""Memory that is kept, in a process of its own: the setting is the process's."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource, sys
from ice_core.standalone.memory import keep_freed_memory

if not keep_freed_memory():
    sys.exit(3)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(2**27)
    ctypes.memset(block, 1, 2**27)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), faults())
"""


def test_what_was_freed_is_there_without_asking_the_system_again() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("this system's C library always hands memory back")
    assert done.returncode == 0, done.stderr
    first, again = map(int, done.stdout.split())
    assert first > 0
    assert again < 0.1 * first
