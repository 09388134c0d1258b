"""What `ice batch` does."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from ice_core.command_line.console import progress_display
from ice_core.errors import IceError
from ice_core.library.batch import Engine, Filed, jobs_in, run_batch
from ice_core.library.store import Library
from ice_core.run.defaults import BUNDLED_STEPS, CHECKPOINT_STEPS

if TYPE_CHECKING:
    from ice_core.recipe import Recipe


def batch(arguments: argparse.Namespace) -> None:
    engine = _engine(arguments)
    if not os.path.isdir(arguments.folder):
        raise IceError(f"there is no folder {arguments.folder}; give one with pictures")
    recipe = _recipe(arguments)
    from ice_core.library.summary import write_summary
    from ice_core.run.events import Progress

    jobs = jobs_in(arguments.folder, recipe.text())
    page = arguments.summary or arguments.library / "summary.html"
    filed: list[Filed] = []
    with Library(arguments.library) as library:
        try:
            with progress_display() as show:
                for one in run_batch(library, jobs, engine, recipe.open, arguments.tag):
                    filed.append(one)
                    if one.error:
                        print(f"note: left out: {one.job.name}: {one.error}", file=sys.stderr, flush=True)
                    if not one.before:
                        show(Progress("pictures", one.done, one.total, one.job.name))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{len(filed)} of {len(jobs)} pictures are done; call it again") from None
        finally:
            if filed:
                write_summary(library, f"Pictures of {arguments.folder.resolve().name}", filed, page)
    failed = sum(1 for one in filed if one.error)
    concepts = sum(len(one.ids) for one in filed)
    before = sum(1 for one in filed if one.before)
    print(f"{len(filed)} pictures, {concepts} concepts, {failed} left out; {before} were done before")
    print(f"library: {arguments.library}")
    print(f"summary: {page}")


def _engine(arguments: argparse.Namespace) -> Engine:
    from ice_core.library.engines import LocalEngine
    from ice_core.library.ray_engine import RayEngine

    for name in ("workers", "threads"):
        if getattr(arguments, name) < 0:
            raise IceError(f"--{name} is {getattr(arguments, name)}; it must be 1 or more")
    if arguments.engine == "ray":
        if arguments.gpus is not None and arguments.gpus < 0:
            raise IceError(f"--gpus is {arguments.gpus}; it must be 0 or more")
        return RayEngine(arguments.address, arguments.workers, arguments.threads or 1, arguments.gpus)
    given = [name for name in ("address", "workers", "gpus") if getattr(arguments, name)]
    if given:
        raise IceError(f"--{given[0]} is for --engine ray; leave it out, or name that engine")
    return LocalEngine()


def _recipe(arguments: argparse.Namespace) -> Recipe:
    """Models and settings, checked before anything is opened."""
    from ice_core.command_line.commands import settings_for
    from ice_core.localization.retrieval.dictionary import Vocabulary
    from ice_core.recipe import Recipe

    for path in (arguments.checkpoint, arguments.vocabulary):
        if path is not None and not os.path.isfile(path):
            raise IceError(f"there is no file {path}")
    if arguments.labels and (arguments.clip or arguments.vocabulary):
        raise IceError("--labels names the objects, --clip and --vocabulary have no use; leave them out")
    steps = CHECKPOINT_STEPS if arguments.checkpoint else BUNDLED_STEPS
    settings, axes = settings_for(arguments, arguments.seed or 0, steps, bundled=not arguments.checkpoint)
    return Recipe(
        checkpoint=arguments.checkpoint.resolve() if arguments.checkpoint else None,
        clip=arguments.clip,
        vocabulary=Vocabulary.from_file(arguments.vocabulary) if arguments.vocabulary else None,
        device=arguments.device,
        dtype=arguments.dtype or "auto",
        settings=settings,
        axes=axes,
        labels=tuple(arguments.labels or ()),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        threads=arguments.threads or int(arguments.engine == "ray"),
    )
