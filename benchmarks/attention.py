"""Ways of reading the model's attention against each other, on rendered scenes with true masks.

    python benchmarks/attention.py --scenes 100 --seed 15 --out benchmarks/results/attention.json

Objects without words: `find_objects` with each affinity between places (a file each in
`ice_core/localization/segmentation/affinities/`). How much a cut may cost is chosen for each on other seeds
(`--choose-on`, half as many scenes in all): the largest sum of mean IoU and right counts.
Places of the true words, looked for in one pass: `segment_words` with the paper's clustering, as in
`benchmarks/literal/` and with our views and edges, and with maps that are spread along self-attention
(DiffSegmenter, iSeg) no, one, two and four times.

Figures as in `benchmarks/localization.py`; intervals are 95 % bootstrap over scenes. With `--markdown` the
table of the README is printed too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from literal.stage_one import SEGMENTATION as PAPER
from localization import FIRST_SEED, SCENES_PER_SEED, SceneScore, intervals, score_scene, summarize
from results import write_results
from torch import Tensor

from ice_core.localization.segmentation import (
    ObjectsConfig,
    SegmentationConfig,
    find_objects,
    segment_words,
)
from ice_core.localization.segmentation.config import AffinityName
from ice_core.model.backbone import Backbone
from ice_core.world.bundled import load_bundled_backbone
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene

CUTS = (0.1, 0.2, 0.25, 0.31, 0.37, 0.45, 0.55, 0.65, 0.75, 0.85, 0.9, 0.94, 0.97)
SPREAD = (0, 1, 2, 4)
COLUMNS = ("mean_iou", "boundary_f", "shadow_share", "count_accuracy")

Finder = Callable[[Backbone, Tensor, Sequence[str], torch.Generator], Tensor]
"""A picture and its true words -> masks [M, H, W] bool; those of words in the words' order."""


def of_objects(config: ObjectsConfig) -> Finder:
    def find(backbone: Backbone, image: Tensor, kinds: Sequence[str], rng: torch.Generator) -> Tensor:
        masks = find_objects(backbone, image, config, rng).masks
        return torch.stack(masks) if masks else torch.zeros(0, *image.shape[1:], dtype=torch.bool)

    return find


def of_words(config: SegmentationConfig) -> Finder:
    def find(backbone: Backbone, image: Tensor, kinds: Sequence[str], rng: torch.Generator) -> Tensor:
        return torch.stack([place.mask for place in segment_words(backbone, image, kinds, config, rng)])

    return find


def words_ways() -> dict[str, SegmentationConfig]:
    plain = SegmentationConfig()
    clusters = replace(plain, method="clusters", tau=PAPER.tau, balance=PAPER.balance)
    ways = {"the paper's clusters": PAPER, "clusters of two views, fitted to edges": clusters}
    return ways | {f"spread {n} times": replace(plain, power=n) for n in SPREAD}


def measure(backbone: Backbone, find: Finder, scenes: int, seed: int, whole: bool) -> list[SceneScore]:
    """Scores of scenes of a seed; not `whole`: objects of one kind count as one, as a word means all."""
    scores = []
    for n in range(scenes):
        scene = sample_scene(FIRST_SEED + seed * SCENES_PER_SEED + n, "seen")
        rendered = render([scene])
        kinds = [item.kind for item in scene.objects]
        truth = rendered.masks[0, : len(kinds)]
        if not whole:
            named = list(dict.fromkeys(kinds))
            truth = torch.stack([truth[[k == kind for k in kinds]].any(0) for kind in named])
            kinds = named
        masks = find(backbone, rendered.images[0], kinds, torch.Generator().manual_seed(seed))
        labels = kinds if not whole else [""] * len(masks)
        scores.append(score_scene(kinds, truth, masks, labels))
    return scores


def best_cut(backbone: Backbone, affinity: AffinityName, scenes: int, seeds: Sequence[int]) -> float:
    """The cut of the largest sum of mean IoU and right counts; of several, the one in the middle of them."""
    quality = {}
    for cut in CUTS:
        find = of_objects(ObjectsConfig(affinity=affinity, cut=cut))
        scores = [score for seed in seeds for score in measure(backbone, find, scenes, seed, True)]
        found = summarize(scores)
        say(f"{affinity}, a cut of {cut}", found)
        quality[cut] = round(found["mean_iou"] + found["count_accuracy"], 3)
    best = [cut for cut in CUTS if quality[cut] == max(quality.values())]
    return best[len(best) // 2]


def say(what: str, found: Mapping[str, float]) -> None:
    figures = "  ".join(f"{name} {found[name]:.3f}" for name in COLUMNS)
    print(f"{what}: {figures}", file=sys.stderr, flush=True)


def table(figures: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    lines = ["| | mean IoU | outline F (2 px) | mask on the ground | right count |", "| --- |" + " --- |" * 4]
    for kind, ways in figures.items():
        for name, found in ways.items():
            cells = [f"{found[column]:.2f}" for column in COLUMNS]
            if kind == "words":
                cells[-1] = ""
            lines.append(f"| {kind}: {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=15)
    parser.add_argument("--choose-on", type=int, nargs="+", default=[5, 6, 7], metavar="SEED")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    if options.seed in options.choose_on:
        parser.error(f"--seed {options.seed} is one of --choose-on: report on another")
    backbone = load_bundled_backbone()
    figures: dict[str, dict[str, Any]] = {"objects": {}, "words": {}}
    each = max(1, options.scenes // (2 * len(options.choose_on)))
    for affinity in get_args(AffinityName):
        cut = best_cut(backbone, affinity, each, options.choose_on)
        find = of_objects(ObjectsConfig(affinity=affinity, cut=cut))
        scores = measure(backbone, find, options.scenes, options.seed, True)
        figures["objects"][affinity] = {**summarize(scores), **intervals(scores), "cut": cut}
        say(affinity, figures["objects"][affinity])
    for name, config in words_ways().items():
        scores = measure(backbone, of_words(config), options.scenes, options.seed, False)
        figures["words"][name] = {**summarize(scores), **intervals(scores)}
        say(name, figures["words"][name])
    settings = {"seed": options.seed, "chosen_on_seeds": options.choose_on, "model": backbone.fingerprint}
    write_results(options.out, figures, settings)
    if options.markdown:
        print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
