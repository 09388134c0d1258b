"""Ctrl-C and SIGTERM end a command in the same way, and only once: no later one interrupts the saving."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_GRACE = 30.0
"""Seconds that saving may take; a signal after that counts again, should the first have got lost."""


@contextmanager
def stopped_once() -> Iterator[list[int]]:
    """KeyboardInterrupt for SIGINT and SIGTERM -> the signals that came, in order; the list fills up.

    A signal that the process was started to ignore stays ignored. Changes nothing outside the main thread,
    where Python takes no signals.
    """
    received: list[int] = []
    since = 0.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal since
        received.append(number)
        now = time.monotonic()
        if len(received) == 1 or now - since > _GRACE:
            since = now
            raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number in numbers if previous[number] not in (signal.SIG_IGN, None)]
    if threading.current_thread() is not threading.main_thread():
        taken = []
    for number in taken:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number in taken:
            signal.signal(number, previous[number])
