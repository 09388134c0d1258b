"""How soon ComfyUI's panel of the concept library shows its first page.

    python benchmarks/library_panel.py --concepts 10000 --out benchmarks/results/library_panel.json

A ComfyUI on the CPU serves a library of random concepts (`benchmarks/library.py`), each with a thumbnail of
128 x 128 pixels of noise; Chromium shows its page. Milliseconds from the click on the panel's button:

- list: until the first page of concepts is in the list;
- pictures: until every thumbnail that is in view is drawn, which is what a person waits for;
- search: from a changed search word to the drawn thumbnails of what it finds (the pause while one types
  included).

first: in a browser that has seen nothing of the panel, in the first of them by a server that has not opened
the library yet; again: when it was closed and is opened again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from library import COLORS, MATERIALS, PER_SET, REAL, add_sets, fill, nouns
from results import write_results

from ice_core.library.place import NAME
from ice_core.library.store import Library
from tools.comfy_host import Host, find_hosts, running

if TYPE_CHECKING:
    from tools.comfy_page import Page

BUTTON = ".ice-library-tab-button"
IN_VIEW = """
const list = document.querySelector('.ice-library-list')?.getBoundingClientRect();
const cells = [...document.querySelectorAll('.ice-library-cell')].filter(cell => {
    const box = cell.getBoundingClientRect();
    return box.bottom > list.top && box.top < list.bottom;
});
const drawn = cells.length > 0 && cells.every(cell => {
    const picture = cell.querySelector('img');
    return picture?.complete && picture.naturalWidth > 0;
});
"""
OPEN = f"""
const done = arguments[0], began = performance.now();
let listed = 0;
const look = () => {{
    {IN_VIEW}
    if (cells.length && !listed) listed = performance.now() - began;
    if (drawn) done([listed, performance.now() - began]);
    else setTimeout(look, 2);
}};
document.querySelector('{BUTTON}').click();
look();
"""
SEARCH = f"""
const [words, done] = arguments, began = performance.now();
const before = document.querySelector('.ice-library-cell');
const look = () => {{
    {IN_VIEW}
    if (drawn && !before.isConnected) done(performance.now() - began);
    else setTimeout(look, 2);
}};
const box = document.querySelector('.ice-library-search');
box.value = words;
box.dispatchEvent(new Event('input', {{bubbles: true}}));
look();
"""


def opened_panel(page: Page) -> list[float]:
    """Milliseconds to the list, and to its pictures in view."""
    page.wait(f"return !!document.querySelector('{BUTTON}');")
    taken: list[float] = page.driver.execute_async_script(OPEN)
    return taken


def measure(host: Host, concepts: int, browsers: int, times: int, seed: int) -> dict[str, Any]:
    """Figures of one host: medians and maxima."""
    from tools.comfy_page import opened

    rng = random.Random(seed)
    first: list[list[float]] = []
    again: list[list[float]] = []
    searched: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        names = nouns()
        with Library(Path(scratch) / NAME) as library:
            add_sets(library, rng, names)
            fill(library.folder, concepts - REAL * PER_SET, rng, names)
            there = library.count()
        with running(host, Path(scratch)) as server:
            for _ in range(browsers):
                with opened(server.url) as page:
                    first.append(opened_panel(page))
                    for _ in range(times):
                        page.ask(f"document.querySelector('{BUTTON}').click();")
                        page.wait("return !document.querySelector('.ice-library');")
                        again.append(opened_panel(page))
                    for _ in range(times):
                        words = f"{rng.choice(COLORS)} {rng.choice(MATERIALS)}"
                        searched.append(page.driver.execute_async_script(SEARCH, words))
                    page.driver.execute_async_script(SEARCH, "")
    return {
        "concepts": there,
        "first": {"list": summary([one[0] for one in first]), "pictures": summary([one[1] for one in first])},
        "again": {"list": summary([one[0] for one in again]), "pictures": summary([one[1] for one in again])},
        "search": summary(searched),
    }


def summary(milliseconds: Sequence[float]) -> dict[str, float]:
    return {"median_ms": round(median(milliseconds), 1), "most_ms": round(max(milliseconds), 1)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--concepts", type=int, default=10_000, help=f"at least {REAL * PER_SET}")
    parser.add_argument("--browsers", type=int, default=5, help="each opens the panel for the first time")
    parser.add_argument(
        "--times", type=int, default=5, help="openings and searches in each browser after that"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    if options.concepts < REAL * PER_SET:
        parser.error(f"--concepts {options.concepts}: at least {REAL * PER_SET}")
    if not (hosts := find_hosts()):
        parser.error("there is no ComfyUI; set COMFYUI_PATH to its folder")
    figures = {}
    for host in hosts:
        found = measure(host, options.concepts, options.browsers, options.times, options.seed)
        figures[host.version] = found
        print(f"{host.version}: {found}", file=sys.stderr, flush=True)
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    write_results(options.out, figures, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
