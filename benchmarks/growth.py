"""How Stage One's time and memory grow with the picture, on a model of Stable Diffusion 1.5's shape.

    python benchmarks/growth.py --out benchmarks/results/growth.json --plot growth.png

The model has random weights, which changes neither: every part of the picture is made foreground, so that
all places are cut. `pass` is one pass of the U-Net as plain sampling makes it, with guidance; `recorded` is
the same with the attention kept that cutting needs; `encode` is the autoencoder's part of the work; `objects`
finds all objects, `words` looks for a single word, `clusters` does so by the paper's clustering. Each is
called once, in a process per size; peaks are bytes above what the process held before, model included. Linux
only.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from resident_memory import peak_above_before
from results import write_results
from speed import random_sd15

from ice_core.files.images import save_png
from ice_core.localization.segmentation import ObjectsConfig, SegmentationConfig, find_objects, segment
from ice_core.localization.segmentation.maps import encode_views, noised_pass, prompt_words
from ice_core.localization.segmentation.objects import MOST_CELLS
from ice_core.model.backbone import Prompt
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene

SEED = 9_400_000
EVERYTHING = ObjectsConfig(foreground=0.001)
WORKS = ("pass", "recorded", "encode", "objects", "words", "clusters")


def measure(width: int, height: int, works: Sequence[str]) -> dict[str, dict[str, float | int | None]]:
    """Seconds and peak bytes of each piece of work."""
    backbone: Any = random_sd15()
    image = F.interpolate(render([sample_scene(SEED, "seen")]).images, size=(height, width))[0]
    rng = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def plain() -> None:
        text = backbone.encode_prompts([Prompt(("ball",)), Prompt(("",))])
        latents = torch.randn(2, 4, height // backbone.factor, width // backbone.factor)
        backbone.predict(latents, torch.tensor([400, 400]), text)

    @torch.no_grad()
    def recorded() -> None:
        latent = torch.randn(1, 4, height // backbone.factor, width // backbone.factor)
        noised_pass(backbone, latent, prompt_words("object"), 400, 2, rng, ("self",), MOST_CELLS)

    calls: dict[str, Callable[[], Any]] = {
        "pass": plain,
        "recorded": recorded,
        "encode": lambda: encode_views(backbone, image, flip=False),
        "objects": lambda: find_objects(backbone, image, EVERYTHING, rng),
        "words": lambda: segment(backbone, image, "ball", SegmentationConfig(), rng),
        "clusters": lambda: segment(backbone, image, "ball", SegmentationConfig(method="clusters"), rng),
    }
    plain()
    figures: dict[str, dict[str, float | int | None]] = {}
    for name in works:
        took: list[float] = []

        def timed(call: Callable[[], Any] = calls[name], took: list[float] = took) -> None:
            began = time.perf_counter()
            call()
            took.append(time.perf_counter() - began)

        peak = peak_above_before(timed)
        figures[name] = {"seconds": took[0], "peak_bytes": peak}
        print(f"{width}x{height} {name}: {took[0]:.1f} s, {(peak or 0) / 2**30:.2f} GiB", file=sys.stderr)
    return figures


def plot(figures: dict[str, Any]) -> Any:
    """Seconds and GiB over the number of pixels, a line for each piece of work."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    drawn = Figure(figsize=(9, 3.6), dpi=110, layout="constrained")
    axes = drawn.subplots(1, 2)
    sizes = list(figures)
    pixels = [int(size.split("x")[0]) * int(size.split("x")[1]) / 2**20 for size in sizes]
    for work in figures[sizes[0]]:
        row = [figures[size][work] for size in sizes]
        axes[0].plot(pixels, [r["seconds"] for r in row], marker="o", label=work)
        axes[1].plot(pixels, [(r["peak_bytes"] or 0) / 2**30 for r in row], marker="o", label=work)
    for axis, label in zip(axes, ("seconds", "GiB beyond the model"), strict=True):
        axis.set_xlabel("megapixels")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
    axes[0].legend()
    buffer = io.BytesIO()
    FigureCanvasAgg(drawn).print_png(buffer)
    return Image.open(buffer).convert("RGB")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["256x256", "512x512", "768x512"], metavar="WxH")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--plot", type=Path, help="PNG file to draw them into")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    figures: dict[str, Any] = {}
    for size in options.sizes:
        width, _, height = size.partition("x")
        if not (width.isdigit() and height.isdigit()) or int(width) % 8 or int(height) % 8:
            parser.error(f"--sizes has {size!r}; a size is WIDTHxHEIGHT in multiples of 8, such as 768x512")
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            figures[size] = process.submit(measure, int(width), int(height), options.works).result()
    write_results(options.out, figures, {"works": options.works})
    if options.plot:
        save_png(plot(figures), options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
