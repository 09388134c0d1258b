"""Seconds and memory of one library's searches, in a process that does nothing else; prints JSON.

    python benchmarks/library_search.py FOLDER --queries 50

Loads no torch: neither does the panel's server or `ice library list` for this.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ice_core.library.entries import Query
from ice_core.library.store import Library

FINGERPRINT = "random"
WIDTH = 768
"""Of ViT-L/14's embeddings."""


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(folder: Path, queries: int, seed: int = 0) -> dict[str, Any]:
    """Medians and maxima of warm searches, the first one by picture, opening, and peak memory in MiB."""
    before = peak_mib()
    began = time.perf_counter()
    library = Library(folder, create=False)
    opening = time.perf_counter() - began
    rng = random.Random(seed)
    vectors = np.random.default_rng(seed).standard_normal((queries + 1, WIDTH)).astype(np.float32)
    page = timed(lambda: library.search(Query()))
    total = library.count()
    entries = [
        hit.entry for hit in library.search(Query(limit=200, offset=rng.randrange(max(1, total - 200))))
    ]
    chosen = [rng.choice(entries) for _ in range(queries)]
    first = timed(lambda: library.search_by_picture(vectors[-1], FINGERPRINT, Query()))

    def by_label(n: int) -> object:
        return library.search(Query(words=chosen[n].label))

    def by_property(n: int) -> object:
        return library.search(Query(words=f"{chosen[n].properties['material']} {chosen[n].label[:3]}"))

    def by_frequent_word(n: int) -> object:
        return library.search(Query(words=chosen[n].properties["material"]))

    def by_same(n: int) -> object:
        return library.search(Query(same=("material", chosen[n].id)))

    def by_picture(n: int) -> object:
        return library.search_by_picture(vectors[n], FINGERPRINT, Query())

    def by_picture_within(n: int) -> object:
        inside = Query(has={"material": chosen[n].properties["material"]})
        return library.search_by_picture(vectors[n], FINGERPRINT, inside)

    figures: dict[str, Any] = {
        "concepts": total,
        "opening_seconds": opening,
        "first_page_seconds": page,
        "first_search_by_picture_seconds": first,
    }
    for ask in (by_label, by_property, by_frequent_word, by_same, by_picture, by_picture_within):
        seconds = [timed(lambda ask=ask, n=n: ask(n)) for n in range(queries)]  # type: ignore[misc]
        figures[ask.__name__] = {"median_seconds": median(seconds), "most_seconds": max(seconds)}
    library.close()
    return figures | {"memory_mib": peak_mib(), "memory_before_mib": before}


def peak_mib() -> float | None:
    """Largest resident size of this process; None where the system does not tell.

    What getrusage tells would be that of the process that started this one.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
    return round(int(found[1]) / 2**10, 1) if found else None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--queries", type=int, default=50)
    options = parser.parse_args()
    print(json.dumps(measure(options.folder, options.queries)))
