"""How Stage One's time and memory grow with the picture, the number of words and the vocabulary.

    python benchmarks/growth.py --out benchmarks/results/growth.json --plot growth.png

`picture`, by its size, on a model of Stable Diffusion 1.5's shape with random weights, which changes neither:
every part of the picture is made foreground, so that all places are cut. `pass` is one pass of the U-Net as
plain sampling makes it, with guidance; `recorded` is the same with the attention kept that cutting needs;
`encode` is the autoencoder's part of the work; `objects` finds all objects, `words` looks for a single word,
`clusters` does so by the paper's clustering. `words`: as many are looked for in a picture of 256 x 256 pixels
of the same model. `vocabulary`: the sparse decomposition of a picture's embedding over so many words of 512
numbers (`benchmarks/retrieval.py`), median of nine.

Each is called once, in a process per size; seconds are a processor's, of one thread, so that what runs beside
does not count; peaks are bytes above what the process held before, model included. Linux only.
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
from retrieval import PENALTY, problem
from speed import random_sd15
from torch import Tensor

from ice_core.files.images import save_png
from ice_core.localization.retrieval.sparse import sparse_weights
from ice_core.localization.segmentation import (
    ObjectsConfig,
    SegmentationConfig,
    find_objects,
    segment,
    segment_words,
)
from ice_core.localization.segmentation.maps import encode_views, noised_pass
from ice_core.localization.segmentation.objects import MOST_CELLS
from ice_core.model.backbone import Prompt
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene

SEED = 9_400_000
EVERYTHING = ObjectsConfig(foreground=0.001)
WORKS = ("pass", "recorded", "encode", "objects", "words", "clusters")
SIDE = 256
THINGS = (
    "ball", "cube", "cup", "vase", "dog", "cat", "car", "tree", "house", "chair", "table", "lamp", "book",
    "shoe", "hat", "bird", "fish", "flower", "bottle", "clock",
)  # fmt: skip

Figures = dict[str, float | int | None]


def picture(width: int, height: int) -> Tensor:
    """A rendered scene [3, height, width]."""
    return F.interpolate(render([sample_scene(SEED, "seen")]).images, size=(height, width))[0]


def cost(call: Callable[[], Any]) -> Figures:
    """A processor's seconds, and peak bytes."""
    took: list[float] = []

    def timed() -> None:
        began = time.process_time()
        call()
        took.append(time.process_time() - began)

    peak = peak_above_before(timed)
    return {"seconds": took[0], "peak_bytes": peak}


def measure(width: int, height: int, works: Sequence[str]) -> dict[str, Figures]:
    """What each piece of work costs."""
    torch.set_num_threads(1)
    backbone: Any = random_sd15()
    image, rng = picture(width, height), torch.Generator().manual_seed(0)

    @torch.no_grad()
    def plain() -> None:
        text = backbone.encode_prompts([Prompt(("ball",)), Prompt(("",))])
        latents = torch.randn(2, 4, height // backbone.factor, width // backbone.factor)
        backbone.predict(latents, torch.tensor([400, 400]), text)

    @torch.no_grad()
    def recorded() -> None:
        latent = torch.randn(1, 4, height // backbone.factor, width // backbone.factor)
        noised_pass(backbone, latent, ["object"], 400, 2, rng, ("self",), MOST_CELLS)

    calls: dict[str, Callable[[], Any]] = {
        "pass": plain,
        "recorded": recorded,
        "encode": lambda: encode_views(backbone, image, flip=False),
        "objects": lambda: find_objects(backbone, image, EVERYTHING, rng),
        "words": lambda: segment(backbone, image, "ball", SegmentationConfig(), rng),
        "clusters": lambda: segment(backbone, image, "ball", SegmentationConfig(method="clusters"), rng),
    }
    plain()
    figures = {}
    for name in works:
        figures[name] = cost(calls[name])
        say(f"{width}x{height} {name}", figures[name])
    return figures


def measure_words(count: int) -> Figures:
    """What it costs to look for so many words."""
    torch.set_num_threads(1)
    backbone: Any = random_sd15()
    image, rng = picture(SIDE, SIDE), torch.Generator().manual_seed(0)
    segment(backbone, image, "ball", SegmentationConfig(), rng)
    found = cost(lambda: segment_words(backbone, image, THINGS[:count], SegmentationConfig(), rng))
    say(f"{count} words", found)
    return found


def measure_vocabulary(words: int) -> Figures:
    """What it costs to explain an embedding by so many words."""
    torch.set_num_threads(1)
    images, dictionary = problem(words, 9, 0)
    sparse_weights(images[:1], dictionary, PENALTY)
    every = [cost(lambda z=z: sparse_weights(z[None], dictionary, PENALTY)) for z in images]
    seconds = sorted(one["seconds"] or 0.0 for one in every)[len(every) // 2]
    found: Figures = {"seconds": seconds, "peak_bytes": max(one["peak_bytes"] or 0 for one in every)}
    say(f"a vocabulary of {words}", found)
    return found


def say(what: str, found: Figures) -> None:
    print(f"{what}: {found['seconds']:.3f} s, {(found['peak_bytes'] or 0) / 2**30:.3f} GiB", file=sys.stderr)


def plot(figures: dict[str, Any]) -> Any:
    """Seconds and GiB over the number of pixels, of words and of the vocabulary's."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    drawn = Figure(figsize=(12, 6.4), dpi=110, layout="constrained")
    axes = drawn.subplots(2, 3, squeeze=False)
    for column, (kind, found) in enumerate(figures.items()):
        lines = {"": found} if kind != "picture" else _by_work(found)
        for name, points in lines.items():
            places = [_place(at) for at in points]
            for row, (figure, unit) in enumerate((("seconds", 1), ("peak_bytes", 2**30))):
                values = [(point[figure] or 0) / unit for point in points.values()]
                axes[row][column].plot(places, values, marker="o", label=name or None)
        axes[1][column].set_xlabel({"picture": "megapixels", "words": "words looked for"}.get(kind, kind))
        for row, label in enumerate(("seconds of one core", "GiB beyond what was held")):
            axes[row][column].set_ylabel(label)
            axes[row][column].set_ylim(0, 1.05 * axes[row][column].get_ylim()[1])
    if figures["picture"]:
        axes[0][0].legend()
    buffer = io.BytesIO()
    FigureCanvasAgg(drawn).print_png(buffer)
    return Image.open(buffer).convert("RGB")


def _by_work(sizes: dict[str, dict[str, Figures]]) -> dict[str, dict[str, Figures]]:
    """Figures of pictures by the piece of work, then by the size."""
    works = [work for work in WORKS if any(work in found for found in sizes.values())]
    return {work: {at: found[work] for at, found in sizes.items() if work in found} for work in works}


def _place(at: str) -> float:
    """Where figures stand: at a number, or at a size's megapixels."""
    width, cross, height = at.partition("x")
    return int(width) * int(height) / 2**20 if cross else float(at)


def alone(work: Callable[..., Any], *of: Any) -> Any:
    """A result from a process of its own, whose memory holds nothing else."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(work, *of).result()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = ["256x256", "512x512", "768x512", "1024x1024"]
    parser.add_argument("--sizes", nargs="*", default=sizes, metavar="WxH")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--words", nargs="*", type=int, default=[1, 2, 5, 10, 20], metavar="N")
    parser.add_argument("--vocabulary", nargs="*", type=int, default=[1_000, 10_000, 100_000], metavar="N")
    parser.add_argument("--plot", type=Path, help="PNG file to draw them into")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    pixels = []
    for size in options.sizes:
        width, _, height = size.partition("x")
        if not (width.isdigit() and height.isdigit()) or int(width) % 8 or int(height) % 8:
            parser.error(f"--sizes has {size!r}; a size is WIDTHxHEIGHT in multiples of 8, such as 768x512")
        pixels.append((int(width), int(height)))
    for count in options.words:
        if not 1 <= count <= len(THINGS):
            parser.error(f"--words has {count}; it must be 1 to {len(THINGS)}")
    figures: dict[str, Any] = {"picture": {}, "words": {}, "vocabulary": {}}
    for words in options.vocabulary:
        figures["vocabulary"][str(words)] = alone(measure_vocabulary, words)
    for count in options.words:
        figures["words"][str(count)] = alone(measure_words, count)
    settings = {"works": options.works, "side_of_words": SIDE}
    write_results(options.out, figures, settings)
    for size, (width, height) in zip(options.sizes, pixels, strict=True):
        figures["picture"][size] = alone(measure, width, height, options.works)
        write_results(options.out, figures, settings)
    if options.plot:
        save_png(plot(figures), options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
