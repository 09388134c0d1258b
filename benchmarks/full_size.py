"""Stage One and ten steps of Stage Two on models of true shape with random weights, with each memory option.

    python benchmarks/full_size.py --family sdxl --device auto --out benchmarks/results/full_size_sdxl.json

`objects`: all objects of a rendered scene are found, every part of it being foreground. `plain` and
`checkpointing` (blocks computed again in the backward pass): steps of the paper's method, whose copy of the
picture is one, each followed by a `bare` forward and backward pass of the U-Net on the same shapes;
`step_over_bare` is the median of their ratios, of the dearer phase. Seconds are medians of wall time. On an
accelerator the family's own size in bfloat16, and `peak_bytes` with the model, as the device's allocator
counts; on a processor 256 x 256 in float32 unless told otherwise, and `peak_bytes` beyond the model, by
resident memory (Linux only). Each in a process of its own: what an allocator keeps of one would count in the
next. What a card must have is `benchmarks/memory_budget.py`.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from full_size_models import SHAPES, random_model
from growth import EVERYTHING
from resident_memory import peak_above_before
from results import write_results
from speed import next_step, scene_concepts

from ice_core.concepts import ConceptSet
from ice_core.localization.segmentation import find_objects
from ice_core.model.backbone import Prompt
from ice_core.standalone.backbone import StandaloneBackbone
from ice_core.standalone.devices import dtype_named, usable_device
from ice_core.standalone.memory import keep_freed_memory
from ice_core.training import TrainingConfig, train

CPU_SIDE = 256
SEED = 0


@dataclass(frozen=True)
class Place:
    """What a model runs on: threads of the processor, and side of the picture in pixels."""

    device: torch.device
    dtype: torch.dtype
    side: int
    threads: int


def seconds(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """What the work returns, and its wall time; a device is waited for."""
    _wait(device)
    began = time.perf_counter()
    result = work()
    _wait(device)
    return result, time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(work: Callable[[], None], device: torch.device) -> int | None:
    """Bytes: of the device with the model on it, or of this process beyond what it held before."""
    if device.type != "cuda":
        return peak_above_before(work)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return int(torch.cuda.max_memory_allocated(device))


def bare_pass(backbone: StandaloneBackbone, side: int) -> Callable[[], None]:
    """One forward and backward pass of the U-Net, gradients to the text context only."""
    with torch.no_grad():
        text = backbone.encode_prompts([Prompt(("a photo of a ball",))])
    context = text.context.detach().clone().requires_grad_()
    text = replace(text, context=context)
    cells = side // backbone.factor
    noisy = torch.randn(1, backbone.channels, cells, cells, device=backbone.device)
    times = torch.tensor([500], device=backbone.device)

    def run() -> None:
        context.grad = None
        backbone.predict(noisy, times, text).float().square().mean().backward()

    return run


def training(backbone: StandaloneBackbone, concepts: ConceptSet, steps: int) -> dict[str, Any]:
    """Medians of a step and of the bare pass after it, by phase, and the peak of it all."""
    device, bare = backbone.device, bare_pass(backbone, concepts.image.shape[1])
    times: dict[int, list[tuple[float, float]]] = defaultdict(list)

    def run() -> None:
        events = train(backbone, concepts, TrainingConfig(steps=steps, snapshot_every=10**6, method="paper"))
        while True:
            event, spent = seconds(lambda: next_step(events), device)
            if event is None:
                return
            times[event.phase].append((spent, seconds(bare, device)[1]))

    bytes_ = peak(run, device)
    # The first step of each phase pays for what is made once.
    kept = {phase: found[1:] or found for phase, found in times.items()}
    every = [pair for found in kept.values() for pair in found]
    return {
        "step_seconds": round(median(spent for spent, _ in every), 3),
        "bare_seconds": round(median(alone for _, alone in every), 3),
        "step_over_bare": round(max(median(a / b for a, b in found) for found in kept.values()), 3),
        "peak_bytes": bytes_,
    }


def objects(backbone: StandaloneBackbone, concepts: ConceptSet) -> dict[str, Any]:
    """Stage One."""
    device, taken = backbone.device, []

    def run() -> None:
        rng = torch.Generator().manual_seed(SEED)
        _, spent = seconds(lambda: find_objects(backbone, concepts.image, EVERYTHING, rng), device)
        taken.append(spent)

    bytes_ = peak(run, device)
    return {"seconds": round(taken[0], 3), "peak_bytes": bytes_}


WORKS = ("objects", "plain", "checkpointing")


def measure(work: str, backbone: StandaloneBackbone, side: int, steps: int) -> dict[str, Any]:
    """Stage One, or Stage Two with one memory option."""
    concepts = scene_concepts(side, SEED)
    if work == "objects":
        return objects(backbone, concepts)
    if work == "checkpointing":
        backbone.checkpoint_gradients()
    return training(backbone, concepts, steps)


def measure_alone(work: str, family: str, where: Place, steps: int) -> dict[str, Any]:
    """`measure`, for a process that does nothing else."""
    torch.set_num_threads(where.threads)
    keep_freed_memory()
    return measure(work, random_model(family, where.device, where.dtype), where.side, steps)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", choices=tuple(SHAPES), required=True)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--side", type=int, help="of the picture in pixels, a multiple of 64")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1, help="of the processor")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = usable_device(options.device)
    dtype = dtype_named(options.dtype, device)
    side = options.side or (CPU_SIDE if device.type == "cpu" else SHAPES[options.family].side)
    if side % 64 or side <= 0:
        parser.error(f"--side is {side}; it must be a multiple of 64")
    place = Place(device, dtype, side, options.threads)
    figures = {}
    for work in WORKS:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            figures[work] = pool.submit(measure_alone, work, options.family, place, options.steps).result()
        print(work, figures[work], flush=True)
    settings = {"side": side, "dtype": str(dtype), "steps": options.steps, "device": device.type}
    write_results(options.out, {options.family: figures}, settings)


if __name__ == "__main__":
    main()
