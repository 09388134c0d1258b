"""What the second reader is worth: properties read by CLIP alone, and with the diffusion model's help.

    python benchmarks/second_reading.py --scenes 40 --seed 10 --out benchmarks/results/second_reading.json

Rendered scenes with true masks and kinds, the bundled models, the world's words, finer names of colors too.
Of `clip` and of `both`: how often the word that is read is true of the object, by axis (`right`; an axis
where nothing fits counts as wrong), and the median distance between the object's paint and the color that the
word names (`distance`, CIEDE2000). `seconds`: processor time per object of the second reader.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from results import write_results

from ice_core.api import reading_for
from ice_core.attributes.reading import readings_of, weigh_with_clip
from ice_core.attributes.second_reader import reconsider
from ice_core.concepts import Concept, ConceptSet
from ice_core.run.pipeline import finish
from ice_core.world.bundled import load_bundled_backbone, load_bundled_towers, world_axes
from ice_core.world.colors import FINE_NAMES, NAMES, lab, lab_difference
from ice_core.world.renderer import render
from ice_core.world.scenes import INTRINSIC_AXES, sample_scene

FIRST_SEED = 8_000_000
NAMED = {**NAMES, **FINE_NAMES}
RESAMPLES = 2000


def figures(right: dict[str, list[bool]], distance: list[float]) -> dict[str, object]:
    """Means with bootstrap intervals over objects, and the median distance."""
    out: dict[str, object] = {}
    rng = np.random.default_rng(0)
    for axis, values in right.items():
        array = np.asarray(values, dtype=float)
        draws = array[rng.integers(len(array), size=(RESAMPLES, len(array)))].mean(1)
        out[f"right.{axis}"] = round(float(array.mean()), 4)
        out[f"right.{axis}.interval"] = [round(float(q), 4) for q in np.quantile(draws, (0.025, 0.975))]
    array = np.asarray(distance)
    draws = np.median(array[rng.integers(len(array), size=(RESAMPLES, len(array)))], axis=1)
    out["distance"] = round(float(np.median(array)), 2)
    out["distance.interval"] = [round(float(q), 2) for q in np.quantile(draws, (0.025, 0.975))]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noises", type=int, default=reading_for(True).noises)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    backbone = load_bundled_backbone()
    towers = load_bundled_towers(backbone)
    axes = [world_axes()[axis] for axis in INTRINSIC_AXES]
    config = replace(reading_for(True), noises=args.noises)
    right: dict[str, dict[str, list[bool]]] = {name: defaultdict(list) for name in ("clip", "both")}
    distance: dict[str, list[float]] = {name: [] for name in right}
    seconds = 0.0
    for n in range(args.scenes):
        scene = sample_scene(FIRST_SEED + 10_000 * args.seed + n, "seen")
        rendered = render([scene])
        masks = rendered.masks[0, : len(scene.objects)]
        found = tuple(
            Concept(f"it-{i}", item.kind, mask, 1.0)
            for i, (item, mask) in enumerate(zip(scene.objects, masks, strict=True))
        )
        concepts = ConceptSet(rendered.images[0], found, ~masks.any(0))
        weighed = weigh_with_clip(towers, concepts, axes, config)
        clip = readings_of(weighed, axes, config)
        before = time.process_time()
        rng = torch.Generator().manual_seed(args.seed)
        read = {"clip": clip, "both": finish(reconsider(backbone, concepts, weighed, clip, config, rng))}
        seconds += time.process_time() - before
        for name, readings in read.items():
            for item, concept in zip(scene.objects, found, strict=True):
                for axis in INTRINSIC_AXES:
                    word = readings[concept.key][axis].value
                    right[name][axis].append(word is not None and item.is_called(axis, word))
                likeliest = readings[concept.key]["color"].candidates[0].value
                distance[name].append(float(lab_difference(lab(item.paint), lab(NAMED[likeliest]))))
    objects = len(distance["clip"])
    out = {name: figures(right[name], distance[name]) for name in right}
    settings = {"scenes": args.scenes, "objects": objects, "seed": args.seed, "noises": config.noises}
    write_results(args.out, {**out, "seconds": round(seconds / objects, 2)}, settings)


if __name__ == "__main__":
    main()
