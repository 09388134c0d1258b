"""The rendered training set: chunks of scenes on disk, drawn once and read by every stage."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ice_core.world.renderer import render
from ice_core.world.scenes import Scene, Split, sample_scene

CHUNK = 256
BETWEEN = 0.15
"""Share of training objects whose color lies between two names: without them a model has gaps there."""


@dataclass(frozen=True)
class RenderedSet:
    """scenes; images [N, 3, 128, 128] uint8; masks [N, 3, 128, 128] bool."""

    scenes: list[Scene]
    images: Tensor
    masks: Tensor


_Job = tuple[Path, int, Split, "int | None", float]


def _scenes(job: _Job) -> list[Scene]:
    _, first, split, count, between = job
    return [sample_scene(first + i, split, count, between) for i in range(CHUNK)]


def _render_chunk(job: _Job) -> None:
    path = job[0]
    torch.set_num_threads(1)
    scenes = _scenes(job)
    rendered = render(scenes)
    part = path.with_suffix(".part")
    torch.save({"images": (rendered.images * 255).round().byte(), "masks": rendered.masks}, part)
    os.replace(part, path)


def rendered_set(
    folder: Path,
    name: str,
    first_seed: int,
    size: int,
    split: Split,
    count: int | None = None,
    between: float = 0.0,
) -> RenderedSet:
    """Scenes `first_seed ...`, rendered on all cores; chunks that are already on disk are reused."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs: list[_Job] = [
        (folder / f"{name}-{first}-{CHUNK}.pt", first, split, count, between)
        for first in range(first_seed, first_seed + size, CHUNK)
    ]
    missing = [job for job in jobs if not job[0].exists()]
    if missing:
        with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
            for done, _ in enumerate(pool.map(_render_chunk, missing), 1):
                print(f"rendered {name}: {done * CHUNK} of {len(missing) * CHUNK}", flush=True)
    chunks = [torch.load(job[0], weights_only=True) for job in jobs]
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        scenes = [scene for chunk in pool.map(_scenes, jobs) for scene in chunk]
    return RenderedSet(
        scenes,
        torch.cat([c["images"] for c in chunks]),
        torch.cat([c["masks"] for c in chunks]),
    )


def training_set(folder: Path, size: int) -> RenderedSet:
    """Scenes of one to three objects, only of combinations that may be seen, some colors between names."""
    return rendered_set(folder / "scenes", "train", 1_000_000, size, "seen", between=BETWEEN)


def judge_set(folder: Path, size: int) -> RenderedSet:
    """Single objects of every combination, from other seeds: for the judge alone."""
    return rendered_set(folder / "scenes", "judge", 5_000_000, size, "any", count=1)
