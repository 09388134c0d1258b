"""How often an object's properties are read right, and how true the stated probabilities are.

    python benchmarks/reading.py --scenes 100 --seed 0 --out benchmarks/results/reading.json

The bundled CLIP reads rendered scenes that training never saw, with true masks and kinds, or with what
Stage One finds (`--masks found`; an object that it misses is left out and counted in `found`). The
temperature is fitted on the scenes of the next seed and judged on those of this one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import torch
from localization import FIRST_SEED, SCENES_PER_SEED, masks_of, pairwise_iou
from results import write_results
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ice_core.attributes.denoising_reader import ModelReadingConfig, read_with_model
from ice_core.attributes.reading import ReadingConfig, View, probabilities, value_directions, views
from ice_core.attributes.values import Axis
from ice_core.concepts import Concept, ConceptSet, unit
from ice_core.localization.config import LocalizationConfig
from ice_core.localization.loop import localize
from ice_core.localization.retrieval.towers import ImageTextModel
from ice_core.standalone.backbone import StandaloneBackbone
from ice_core.world.bundled import bundled_retriever, load_bundled_backbone, load_bundled_towers
from ice_core.world.renderer import render
from ice_core.world.scenes import AXES, INTRINSIC_AXES, SceneObject, sample_scene

VIEWS: tuple[View, ...] = get_args(View)
BINS = 15
TEMPERATURES = [0.05 * 1.05**i for i in range(80)]


def plain_axes() -> dict[str, Axis]:
    """The world's axes with the words that its scenes are described by: one of them is right."""
    return {name: Axis(name, AXES[name]) for name in INTRINSIC_AXES}


@dataclass(frozen=True)
class Seen:
    """An object to read, and what it is. concepts: its picture with this object alone as a concept."""

    concepts: ConceptSet
    truth: SceneObject


def expected_calibration_error(weights: Tensor, right: Tensor) -> float:
    """Mean gap between stated probability and accuracy, of answers [N] in bins of equal width.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    bins = (weights * BINS).long().clamp(max=BINS - 1)
    gaps = [(weights[bins == b].sum() - right[bins == b].sum()).abs() for b in range(BINS)]
    return float(sum(gaps)) / len(weights)


def objects(scenes: int, seed: int, masks: str, backbone: StandaloneBackbone) -> tuple[list[Seen], int]:
    """What there is to read in the scenes of a seed, and how many objects they hold."""
    retriever = bundled_retriever(backbone) if masks == "found" else None
    seen: list[Seen] = []
    total = 0
    for n in range(scenes):
        scene = sample_scene(FIRST_SEED + seed * SCENES_PER_SEED + n, "any")
        rendered = render([scene])
        image, truth = rendered.images[0], rendered.masks[0, : len(scene.objects)]
        total += len(scene.objects)
        if retriever is None:
            pairs = [(m, o.kind, o) for m, o in zip(truth, scene.objects, strict=True) if m.any()]
        else:
            generator = torch.Generator().manual_seed(seed)
            *_, last = localize(backbone, retriever, image, LocalizationConfig(), generator)
            found = last.result.concepts
            iou = pairwise_iou(truth, masks_of(last.result))
            matches = zip(*linear_sum_assignment(iou.numpy(), maximize=True), strict=True)
            pairs = [(found[j].mask, found[j].label, scene.objects[i]) for i, j in matches if iou[i, j] > 0]
        for mask, label, truth_of in pairs:
            seen.append(Seen(ConceptSet(image, (Concept("it", label, mask, 1.0),), ~mask), truth_of))
        print(f"\rseed {seed}: scene {n + 1}/{scenes}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return seen, total


def clip_scores(
    towers: ImageTextModel, seen: Sequence[Seen], axes: Mapping[str, Axis], templates: Sequence[str]
) -> dict[str, dict[View | tuple[View, ...], Tensor]]:
    """Cosines [N, V] per axis, of every view alone and of the default ones together."""
    together = ReadingConfig().views
    embedded = [towers.encode_images(views(one.concepts.image, _mask(one), VIEWS)) for one in seen]
    labels = sorted({one.concepts.concepts[0].label for one in seen})
    scores: dict[str, dict[View | tuple[View, ...], Tensor]] = {}
    for name, axis in axes.items():
        to = {label: value_directions(towers, label, axis, templates) for label in labels}
        choices = {
            **{view: [i] for i, view in enumerate(VIEWS)},
            together: [VIEWS.index(v) for v in together],
        }
        scores[name] = {
            choice: torch.stack(
                [
                    unit(e[rows].mean(0)) @ to[one.concepts.concepts[0].label].T
                    for e, one in zip(embedded, seen, strict=True)
                ]
            )
            for choice, rows in choices.items()
        }
    return scores


def _mask(one: Seen) -> Tensor:
    return one.concepts.concepts[0].mask


def answers(axis: Axis, seen: Sequence[Seen]) -> Tensor:
    """Which value is true [N]."""
    return torch.tensor([axis.values.index(one.truth.value(axis.name)) for one in seen])


def fitted_temperature(scores: Mapping[str, Tensor], true: Mapping[str, Tensor], scale: float) -> float:
    """The temperature that makes the true values likeliest, over all axes.

    Targets are smoothed by the number of answers N as Platt (1999) does: 1 - 1 / (N + 2) for the true
    value. Where every answer is right, plain targets would ask for a temperature of 0.
    """

    def surprise(temperature: float) -> float:
        total = 0.0
        for name, found in scores.items():
            count, values = found.shape
            target = torch.full((count, values), 1 / (count + 2) / (values - 1))
            target[range(count), true[name]] = 1 - 1 / (count + 2)
            total -= (target * (found * scale / temperature).log_softmax(-1)).sum(1).mean().item()
        return total

    return min(TEMPERATURES, key=surprise)


def calibration(
    scores: Mapping[str, Tensor], true: Mapping[str, Tensor], scale: float, temperature: float
) -> float:
    best = {a: probabilities(scores[a], scale, temperature).max(1) for a in scores}
    right = torch.cat([(best[a].indices == true[a]).float() for a in scores])
    return expected_calibration_error(torch.cat([best[a].values for a in scores]), right)


def measure_clip(scenes: int, seed: int, masks: str, backbone: StandaloneBackbone) -> dict[str, object]:
    towers, axes, config = load_bundled_towers(backbone), plain_axes(), ReadingConfig()
    measured, total = objects(scenes, seed, masks, backbone)
    scores = clip_scores(towers, measured, axes, config.templates)
    true = {name: answers(axis, measured) for name, axis in axes.items()}

    def accuracy(choice: View | tuple[View, ...]) -> dict[str, float]:
        return {a: (scores[a][choice].argmax(1) == true[a]).float().mean().item() for a in axes}

    others, _ = objects(scenes, seed + 1, masks, backbone)
    fit_on = clip_scores(towers, others, axes, config.templates)
    fitted = fitted_temperature(
        {a: fit_on[a][config.views] for a in axes}, {a: answers(axes[a], others) for a in axes}, towers.scale
    )
    chosen = {a: scores[a][config.views] for a in axes}
    stated = {"default": config.temperature, "fitted": fitted, "of_clip_itself": 1.0}
    return {
        "accuracy": accuracy(config.views),
        "accuracy_by_view": {view: accuracy(view) for view in VIEWS},
        "temperature": stated,
        "expected_calibration_error": {
            n: calibration(chosen, true, towers.scale, t) for n, t in stated.items()
        },
        "found": len(measured) / total,
        "objects": len(measured),
    }


def measure_model(scenes: int, seed: int, masks: str, backbone: StandaloneBackbone) -> dict[str, object]:
    axes, config = plain_axes(), ModelReadingConfig()
    measured, total = objects(scenes, seed, masks, backbone)
    right: dict[str, list[bool]] = {name: [] for name in axes}
    weights: list[float] = []
    for i, one in enumerate(measured):
        generator = torch.Generator().manual_seed(seed * SCENES_PER_SEED + i)
        (reading,) = read_with_model(backbone, one.concepts, list(axes.values()), config, generator).values()
        for name in axes:
            best = reading[name].candidates[0]
            right[name].append(best.value == one.truth.value(name))
            weights.append(best.weight)
    by_object = [right[name][i] for i in range(len(measured)) for name in axes]
    return {
        "accuracy": {name: sum(found) / len(found) for name, found in right.items()},
        "expected_calibration_error": expected_calibration_error(
            torch.tensor(weights), torch.tensor(by_object).float()
        ),
        "found": len(measured) / total,
        "objects": len(measured),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=100, help="number of scenes, 1 to 10000")
    parser.add_argument("--seed", type=int, default=0, help="which scenes")
    parser.add_argument("--reader", choices=["clip", "model"], default="clip")
    parser.add_argument("--masks", choices=["true", "found"], default="true")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    if not 1 <= options.scenes <= SCENES_PER_SEED:
        parser.error(f"--scenes is {options.scenes}; it must be 1 to {SCENES_PER_SEED}")
    backbone = load_bundled_backbone()
    measure = measure_clip if options.reader == "clip" else measure_model
    figures = measure(options.scenes, options.seed, options.masks, backbone)
    config = ReadingConfig() if options.reader == "clip" else ModelReadingConfig()
    settings = {
        "scenes": options.scenes,
        "seed": options.seed,
        "masks": options.masks,
        "reader": options.reader,
        "reading": asdict(config),
        "model": backbone.fingerprint,
    }
    write_results(options.out, figures, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
