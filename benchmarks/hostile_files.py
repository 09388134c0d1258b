"""Damaged and hostile files given to every reader of this package.

    python benchmarks/hostile_files.py --files 3000 --seed 1 --out benchmarks/results/hostile_files.json

Whole files of each kind are spoiled by a seed and read as a command would read them, in a process of their
own. `read` and `refused` (an IceError) are as it should be. `wrong` lists all others by file and number: a
traceback, a crash, a hang (10 s of processor time, or 60 s in all), or more than 1 GiB above what was held
before and the file's own size. Linux tells the memory; elsewhere it is not looked at.
"""

from __future__ import annotations

import argparse
import gc
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hostile.mutations import spoiled
from hostile.samples import Kind, kinds
from resident_memory import peak_above_before
from results import write_results

from ice_core.errors import IceError

LARGE = ("checkpoint", "older checkpoint")
MOST_SECONDS, MOST_WAITED, MOST_BYTES = 10.0, 60.0, 2**30


def placed(kind: Kind, folder: Path, seed: int) -> Path:
    """Write the files of a kind into an empty folder, one of them spoiled -> that one."""
    rng = random.Random(seed)
    chosen = rng.choice(list(kind.files))
    for name, data in kind.files.items():
        (folder / name).write_bytes(spoiled(name, data, rng) if name == chosen else data)
    return folder / chosen


def outcome(kind: Kind, folder: Path, path: Path) -> str:
    """ "read", "refused", or what went wrong."""
    try:
        kind.read(folder, path)
    except IceError:
        return "refused"
    # This is the very question: which others come up.
    except Exception as error:
        return f"traceback: {type(error).__name__}: {str(error)[:200]}"
    return "read"


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def _work(connection: Connection) -> None:
    """Answers (kind, folder, path) with (outcome, processor seconds, bytes above before), until None."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "samples").mkdir()
        every = kinds(root / "samples")
        # Whole ones first, so that what is imported is not counted.
        for kind in every.values():
            with _emptied(root / "whole") as folder:
                for file, data in kind.files.items():
                    (folder / file).write_bytes(data)
                for file in kind.files:
                    assert outcome(kind, folder, folder / file) == "read", file
        # What is imported by now stays, and need not be searched for garbage after every file.
        gc.freeze()
        connection.send("ready")
        while (asked := connection.recv()) is not None:
            name, folder, path = asked
            said: list[str] = []
            began = time.process_time()
            peak = peak_above_before(lambda: said.append(outcome(every[name], folder, path)))  # noqa: B023
            connection.send((said[0], time.process_time() - began, peak or 0))


class Reader:
    """A process that reads files, and is started anew when one of them ended it."""

    def __init__(self) -> None:
        self._process: Any = None

    def read(self, name: str, folder: Path, path: Path) -> tuple[str, float, int]:
        """Outcome, seconds of processor time, bytes above what was held before."""
        if self._process is None:
            here, there = get_context("spawn").Pipe()
            self._process, self._connection = get_context("spawn").Process(target=_work, args=(there,)), here
            self._process.start()
            there.close()
            self._connection.recv()
        self._connection.send((name, folder, path))
        try:
            if self._connection.poll(MOST_WAITED):
                said, seconds, peak = self._connection.recv()
                return ("hang" if seconds > MOST_SECONDS else said), seconds, peak
            self.close()
            return "hang", MOST_WAITED, 0
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            self._process = None
            return f"crash: exit code {code}", 0.0, 0

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def turns(names: Sequence[str]) -> list[str]:
    """The kinds in turn, those with large files once where others come five times."""
    return [name for name in names for _ in range(1 if name in LARGE else 5)]


def measure(files: int, seed: int) -> dict[str, Any]:
    """What became of so many files."""
    figures: dict[str, Any] = {}
    reader = Reader()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "samples").mkdir()
        every = kinds(root / "samples")
        order = turns(list(every))
        for number in range(files):
            name = order[number % len(order)]
            of = figures.setdefault(
                name, {"files": 0, "read": 0, "refused": 0, "wrong": [], "slowest_s": 0.0, "largest_mib": 0.0}
            )
            with _emptied(root / "files") as folder:
                path = placed(every[name], folder, seed * 1_000_003 + number)
                size = path.stat().st_size
                said, seconds, peak = reader.read(name, folder, path)
            if peak - size > MOST_BYTES and said in ("read", "refused"):
                said = f"memory: {peak / 2**20:.0f} MiB for a file of {size} bytes"
            of["files"] += 1
            if said in ("read", "refused"):
                of[said] += 1
            else:
                of["wrong"].append({"number": number, "file": path.name, "what": said})
                print(f"{name} {number} {path.name}: {said}", file=sys.stderr)
            of["slowest_s"] = max(of["slowest_s"], round(seconds, 2))
            of["largest_mib"] = max(of["largest_mib"], round((peak - size) / 2**20, 1))
            if (number + 1) % 250 == 0:
                print(f"{number + 1} of {files} files", file=sys.stderr)
    reader.close()
    total = {key: sum(of[key] for of in figures.values()) for key in ("files", "read", "refused")}
    return {"all": {**total, "wrong": sum(len(of["wrong"]) for of in figures.values())}, **figures}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=3000, help="how many (3000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    figures = measure(options.files, options.seed)
    write_results(options.out, figures, {"files": options.files, "seed": options.seed})
    return 1 if figures["all"]["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
