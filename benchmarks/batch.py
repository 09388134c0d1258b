"""Pictures per minute of `ice batch`: this process, one Ray worker, and several.

    python benchmarks/batch.py --scenes 40 --workers 2 --out benchmarks/results/batch.json

Rendered scenes are taken apart by the bundled model with the method `words`, one thread per worker, on Ray
clusters that are started here.
- by engine: seconds from the first result to the last, which leaves out starting and opening models (with
  several workers from as many results on, for all have their first picture nearly done when one has), and
  pictures per minute of that; start_seconds: until the first result is there;
- speedup: of several Ray workers over one; overhead: of one Ray worker over this process, as a share;
- equal: whether tokens, masks and readings of all engines are the same to the last bit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from results import write_results

from ice_core.api import axes_for, reading_for, showing_for
from ice_core.concepts import readings_to_plain
from ice_core.errors import IceError
from ice_core.files.images import save_png
from ice_core.library.batch import Engine, jobs_in, run_batch
from ice_core.library.engines import LocalEngine
from ice_core.library.entries import Query
from ice_core.library.ray_engine import RayEngine
from ice_core.library.store import Library
from ice_core.recipe import Recipe
from ice_core.run.defaults import AXES
from ice_core.run.settings import ExtractionSettings
from ice_core.training.config import TrainingConfig
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene

FIRST_SEED = 6_000_000
"""Training drew scenes from 1 000 000 on; the other benchmarks draw from 7, 8 and 9 million on."""


def recipe() -> Recipe:
    training = TrainingConfig(AXES, 0, seed=0, method="words")
    settings = ExtractionSettings(training, showing=showing_for(True), reading=reading_for(True))
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Recipe(None, None, None, "cpu", "float32", settings, axes_for(True, AXES), (), now, threads=1)


def contents(library: Library) -> dict[str, Any]:
    """What was learned of each picture, without what differs by the moment."""
    found: dict[str, Any] = {}
    for hit in library.search(Query(limit=10**6)):
        (saved,) = library.load(hit.entry.id)
        (concept,) = saved.learned.concepts
        found[f"{saved.title}/{concept.key}"] = (
            {name: {k: v.tolist() for k, v in token.rows.items()} for name, token in concept.tokens.items()},
            saved.found[0].mask.tolist(),
            readings_to_plain({"": concept.readings}),
        )
    return found


def run(folder: Path, engine: Engine, library: Path, workers: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures of one engine, and what it learned."""
    made = recipe()
    jobs = jobs_in(folder, made.text())
    began = time.perf_counter()
    moments: list[float] = []
    with Library(library) as kept:
        for one in run_batch(kept, jobs, engine, made.open):
            if one.error:
                print(f"{one.job.name}: {one.error}", file=sys.stderr)
            moments.append(time.perf_counter())
        seconds = moments[-1] - moments[workers - 1]
        figures = {
            "seconds": seconds,
            "pictures_per_minute": 60 * (len(jobs) - workers) / seconds,
            "start_seconds": moments[0] - began,
        }
        return figures, contents(kept)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    engines: dict[str, tuple[Engine, int]] = {
        "local": (LocalEngine(), 1),
        "ray_1": (RayEngine(workers=1), 1),
        f"ray_{options.workers}": (RayEngine(workers=options.workers), options.workers),
    }
    figures: dict[str, Any] = {}
    learned = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "pictures"
        for n in range(options.scenes):
            scene = sample_scene(FIRST_SEED + 10_000 * options.seed + n)
            save_png(render([scene]).images[0], folder / f"{n:04}.png")
        try:
            for name, (engine, workers) in engines.items():
                figures[name], found = run(folder, engine, Path(scratch) / name, workers)
                learned.append(found)
                print(f"{name}: {figures[name]}", file=sys.stderr, flush=True)
        except IceError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    rate = {name: one["pictures_per_minute"] for name, one in figures.items()}
    figures["speedup"] = rate[f"ray_{options.workers}"] / rate["ray_1"]
    figures["overhead"] = rate["local"] / rate["ray_1"] - 1
    figures["equal"] = all(one == learned[0] for one in learned)
    figures["concepts"] = len(learned[0])
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    write_results(options.out, figures, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
