"""Progress for people: bars with the time left on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from ice_core.run.events import Progress


class ProgressLines:
    """A line per stage and tenth of it, without control characters."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.stage, self.tenth, self.began, self.first = "", -1, 0.0, 0

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.flush()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self.stage:
            self.stage, self.tenth, self.began, self.first = progress.stage, -1, now, progress.done
        tenth = 10 * progress.done // max(1, progress.total)
        if tenth == self.tenth:
            return
        self.tenth = tenth
        done = progress.done - self.first
        left = ""
        if done and progress.done < progress.total:
            seconds = (now - self.began) / done * (progress.total - progress.done)
            left = f", about {seconds:.0f} s left"
        note = f" ({progress.note})" if progress.note else ""
        print(f"{progress.stage} {progress.done}/{progress.total}{note}{left}", file=self.stream, flush=True)


class ProgressBars:
    """One bar per stage, drawn by rich."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        self.bars = Bars(
            TextColumn("{task.description:<16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}", markup=True),
            console=Console(file=stream),
            # What is printed goes above the bars, but not away from a file that it was redirected to.
            redirect_stdout=sys.stdout.isatty(),
        )
        self.tasks: dict[str, int] = {}

    def __enter__(self) -> ProgressBars:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, progress: Progress) -> None:
        from rich.markup import escape
        from rich.progress import TaskID

        if progress.stage not in self.tasks:
            self.tasks[progress.stage] = self.bars.add_task(
                progress.stage, total=progress.total, completed=progress.done, note=""
            )
        self.bars.update(
            TaskID(self.tasks[progress.stage]),
            completed=progress.done,
            total=progress.total,
            note=escape(progress.note),
        )


def progress_display(stream: TextIO | None = None) -> ProgressBars | ProgressLines:
    """Bars when the stream (default: stderr) is a terminal, else lines."""
    stream = stream or sys.stderr
    return ProgressBars(stream) if stream.isatty() else ProgressLines(stream)
