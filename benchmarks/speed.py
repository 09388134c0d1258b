"""What a training step costs beside the one forward and backward pass that it cannot do without.

    python benchmarks/speed.py --out benchmarks/results/speed.json

`bare`: one pass of the U-Net on noise of the step's shape and a text context of the step's shape, mean square
of the output, backward to the context; nothing is encoded, recorded, drawn by chance or optimized. `phase_1`,
`phase_2`: a whole step of Stage Two as `train` does it. Bare passes and steps take turns, so that what else
the machine does meets both; figures are medians, in seconds, of processor time and of wall time.
`step_over_bare_by_phase` is the median of each step over the bare pass that follows it, by processor time,
`step_over_bare` the dearer phase's; run it with one thread. As in `ice`, freed memory is kept: otherwise it
depends on where blocks happen to lie whether a pass has to ask the system for a gigabyte of pages or not.

`bundled`: the bundled model and a rendered scene. `sd15`: a randomly initialised model of Stable Diffusion
1.5's shape in float32 at 256 x 256 pixels.

`bundled.ours`, `bundled.literal`: the paper's method as `train` does it and as it reads (`literal/`), from
the same seed. Both take turns of ten steps; `steps_per_second` is by wall time, of the mean of both phases'
medians. On a machine that does nothing else, `steps_per_processor_second` with one thread is the same.
`peak_bytes` is how far a training of a few steps raises the resident memory of a process of its own.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from literal import train_literal
from resident_memory import peak_above_before
from results import write_results

from ice_core.concepts import ConceptSet
from ice_core.localization.given import concepts_from_masks
from ice_core.model.backbone import Backbone, Prompt
from ice_core.run.report import peak_memory_mib
from ice_core.standalone.memory import keep_freed_memory
from ice_core.training import StepDone, TrainingConfig, train
from ice_core.world.bundled import load_bundled_backbone
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene

Times = tuple[float, float]

LOOPS: Mapping[str, Callable[..., Any]] = {"ours": train, "literal": train_literal}
TURN = 10
"""Steps: enough for a loop to find the processor's caches filled with its own numbers."""


def timed(work: Callable[[], Any]) -> tuple[Any, Times]:
    """What the work returns, and its seconds of processor and of wall time."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return result, (time.process_time() - cpu, time.perf_counter() - wall)


def next_step(events: Iterator[Any]) -> StepDone | None:
    """The next step, past the snapshots before it; None at the end."""
    return next((event for event in events if isinstance(event, StepDone)), None)


def bare_pass(backbone: Backbone, size: tuple[int, int]) -> Callable[[], None]:
    """One forward and backward pass of the denoiser, gradients to the text context only."""
    height, width = (side // backbone.factor for side in size)
    with torch.no_grad():
        text = backbone.encode_prompts([Prompt(("a photo of a ball",))])
    context = text.context.detach().clone().requires_grad_()
    text = replace(text, context=context)
    noisy, times = torch.randn(1, backbone.channels, height, width), torch.tensor([500])

    def run() -> None:
        context.grad = None
        backbone.predict(noisy, times, text).float().square().mean().backward()

    return run


def measure(backbone: Backbone, concepts: ConceptSet, steps: int, warmup: int = 2) -> dict[str, Any]:
    """Medians of bare passes, of both phases' steps, and of each step over the bare pass after it."""
    bare = bare_pass(backbone, (concepts.image.shape[1], concepts.image.shape[2]))
    config = TrainingConfig(steps=2 * (steps + warmup), snapshot_every=10**6, method="paper")
    events = train(backbone, concepts, config)
    times: dict[str, list[Times]] = defaultdict(list)
    ratios: dict[str, list[float]] = defaultdict(list)
    while True:
        event, spent = timed(lambda: next_step(events))
        if event is None:
            break
        phase, alone = f"phase_{event.phase}", timed(bare)[1]
        times[phase].append(spent)
        times["bare"].append(alone)
        ratios[phase].append(spent[0] / alone[0])
    events.close()
    figures: dict[str, Any] = {}
    for clock, which in (("processor_seconds", 0), ("wall_seconds", 1)):
        # The first steps of each phase pay for what is made once.
        figures[clock] = {
            name: round(median(t[which] for t in spent[warmup:]), 5) for name, spent in sorted(times.items())
        }
    figures["step_over_bare_by_phase"] = {
        phase: round(median(found[warmup:]), 3) for phase, found in ratios.items()
    }
    figures["step_over_bare"] = max(figures["step_over_bare_by_phase"].values())
    peak = peak_memory_mib()
    figures["peak_bytes"] = None if peak is None else int(peak * 2**20)
    return figures


def scene_concepts(side: int, seed: int) -> ConceptSet:
    """A rendered scene of two objects with its true masks."""
    scene = sample_scene(seed, count=2)
    rendered = render([scene], side)
    return concepts_from_masks(
        rendered.images[0], [o.kind for o in scene.objects], list(rendered.masks[0, :2])
    )


def rates(seed: int, steps: int, warmup: int = 2) -> dict[str, dict[str, float]]:
    """Steps per second of both loops, which take turns."""
    config = TrainingConfig(steps=2 * (steps + warmup), snapshot_every=10**6, method="paper")
    concepts = scene_concepts(128, seed)
    events = {name: loop(load_bundled_backbone(), concepts, config) for name, loop in LOOPS.items()}
    times: dict[tuple[str, int], list[Times]] = defaultdict(list)
    for start in range(0, config.steps, TURN):
        for name, stream in events.items():
            for _ in range(start, min(start + TURN, config.steps)):
                event, spent = timed(partial(next_step, stream))
                assert event is not None
                times[name, event.phase].append(spent)
    for stream in events.values():
        stream.close()

    def rate(name: str, clock: int) -> float:
        return round(1 / mean(median(t[clock] for t in times[name, phase][warmup:]) for phase in (1, 2)), 3)

    return {
        name: {"steps_per_second": rate(name, 1), "steps_per_processor_second": rate(name, 0)}
        for name in LOOPS
    }


def training_peak(loop: str, seed: int, threads: int) -> int | None:
    """Bytes above the level before. A first training loads what the process keeps from then on."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    backbone, concepts = load_bundled_backbone(), scene_concepts(128, seed)

    def run(steps: int) -> None:
        for _ in LOOPS[loop](backbone, concepts, TrainingConfig(steps=steps, method="paper")):
            pass

    run(2)
    return peak_above_before(lambda: run(8))


def against_literal(seed: int, steps: int, threads: int) -> dict[str, Any]:
    """Speed and memory of both loops."""
    figures: dict[str, Any] = {}
    for name, found in rates(seed, steps).items():
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            peak = process.submit(training_peak, name, seed, threads).result()
        figures[name] = found | {"peak_bytes": peak}
    return figures


def random_sd15() -> Backbone:
    """A model of Stable Diffusion 1.5's shape with random weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from ice_core.standalone.backbone import StandaloneBackbone
    from ice_core.standalone.clip_text import ClipText
    from ice_core.standalone.ldm import to_original_layout
    from ice_core.standalone.stable_diffusion_1 import ENCODER, infer

    torch.manual_seed(0)
    unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        scaling_factor=0.18215,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            bos_token_id=49406,
            eos_token_id=49407,
        )
    )
    state = {k.removeprefix("text_model."): v for k, v in text.state_dict().items()}
    shapes = {k: tuple(v.shape) for k, v in to_original_layout(unet, vae, state).items()}
    return StandaloneBackbone(
        unet, vae, ClipText(ENCODER, text), infer(shapes, {}), "random SD 1.5", lambda: "0" * 64
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="measured steps per phase, bundled model")
    parser.add_argument(
        "--sd15-steps", type=int, default=8, help="the same for the large one; 0 leaves it out"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    figures = {"bundled": measure(load_bundled_backbone(), scene_concepts(128, args.seed), args.steps)}
    if args.sd15_steps:
        figures["sd15"] = measure(random_sd15(), scene_concepts(256, args.seed), args.sd15_steps, warmup=1)
    figures["bundled"] |= against_literal(args.seed, args.steps, args.threads)
    write_results(args.out, figures, {k: v for k, v in vars(args).items() if k != "out"})


if __name__ == "__main__":
    main()
