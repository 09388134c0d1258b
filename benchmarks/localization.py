"""How well Stage One finds the objects of rendered scenes that training never saw.

    python benchmarks/localization.py --scenes 50 --seed 0 --out benchmarks/results/localization.json

Masks are matched to the rendered ones for the largest sum of IoU; an object without a match counts 0.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from results import write_results
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ice_core.concepts import ConceptSet
from ice_core.errors import IceError
from ice_core.localization.loop import LocalizationConfig, localize
from ice_core.localization.segmentation import SegmentationConfig
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene

FIRST_SEED = 9_000_000
"""Training drew scenes from 1 000 000 on, the judge from 5 000 000 on."""

SCENES_PER_SEED = 10_000


@dataclass(frozen=True)
class SceneScore:
    """One scene. ious, labels_right: per true object, 0 and False where no mask was matched;
    found: number of concepts."""

    ious: tuple[float, ...]
    labels_right: tuple[bool, ...]
    found: int


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of masks [N, H, W] and [M, H, W] bool: [N, M]; 0 for two empty masks."""
    a, b = first.flatten(1).float(), second.flatten(1).float()
    both = a @ b.T
    union = a.sum(1)[:, None] + b.sum(1) - both
    return both / union.clamp(min=1)


def score_scene(kinds: Sequence[str], truth: Tensor, masks: Tensor, labels: Sequence[str]) -> SceneScore:
    """Match found masks [M, H, W] to true ones [N, H, W] for the largest sum of IoU (Hungarian)."""
    iou = pairwise_iou(truth, masks)
    ious, right = [0.0] * len(kinds), [False] * len(kinds)
    for i, j in zip(*linear_sum_assignment(iou.numpy(), maximize=True), strict=True):
        ious[i] = iou[i, j].item()
        right[i] = ious[i] > 0 and labels[j] == kinds[i]
    return SceneScore(tuple(ious), tuple(right), len(labels))


def summarize(scores: Sequence[SceneScore]) -> dict[str, float | int]:
    """Means over objects (IoU, labels) and over scenes (counts)."""
    objects = sum(len(s.ious) for s in scores)
    return {
        "mean_iou": sum(sum(s.ious) for s in scores) / objects,
        "label_accuracy": sum(sum(s.labels_right) for s in scores) / objects,
        "count_accuracy": sum(s.found == len(s.ious) for s in scores) / len(scores),
        "objects": objects,
        "scenes": len(scores),
    }


def masks_of(found: ConceptSet) -> Tensor:
    """[M, H, W] bool, also where M is 0."""
    if not found.concepts:
        return torch.zeros(0, *found.image.shape[1:], dtype=torch.bool)
    return torch.stack([concept.mask for concept in found.concepts])


def override(config: SegmentationConfig, settings: Sequence[str]) -> SegmentationConfig:
    """The config with "name=value" settings, each read as the type of the default."""
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in (names := [f.name for f in fields(config)]):
            raise IceError(f"unknown segmentation setting {name!r}; there are: {', '.join(names)}")
        kind = type(getattr(config, name))
        try:
            parsed: Any = value.lower() in ("1", "true", "yes") if kind is bool else kind(value)
        except ValueError:
            raise IceError(f"segmentation {name} is {value!r}; it must be of type {kind.__name__}") from None
        config = replace(config, **{name: parsed})
    return config


def measure(
    scenes: int, seed: int, split: str, config: LocalizationConfig, device: str
) -> tuple[list[SceneScore], float, str]:
    """Scores, seconds per scene of localization alone, and the model's fingerprint."""
    from ice_core.world.bundled import bundled_retriever, load_bundled_backbone

    backbone = load_bundled_backbone(device)
    retriever = bundled_retriever(backbone)
    scores: list[SceneScore] = []
    seconds = 0.0
    for n in range(scenes):
        scene = sample_scene(FIRST_SEED + seed * SCENES_PER_SEED + n, split)  # type: ignore[arg-type]
        rendered = render([scene])
        began = time.perf_counter()
        generator = torch.Generator().manual_seed(seed)
        *_, last = localize(backbone, retriever, rendered.images[0], config, generator)
        seconds += time.perf_counter() - began
        truth, kinds = rendered.masks[0, : len(scene.objects)], [item.kind for item in scene.objects]
        labels = [concept.label for concept in last.result.concepts]
        scores.append(score_scene(kinds, truth, masks_of(last.result), labels))
        so_far = summarize(scores)
        print(
            f"\rscene {n + 1}/{scenes}  IoU {so_far['mean_iou']:.3f}  labels {so_far['label_accuracy']:.3f}  "
            f"counts {so_far['count_accuracy']:.3f}",
            end="",
            file=sys.stderr,
            flush=True,
        )
    print(file=sys.stderr)
    return scores, seconds / scenes, backbone.fingerprint


def main(arguments: Sequence[str] | None = None) -> int:
    default = SegmentationConfig()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=50, help="number of scenes, 1 to 10000")
    parser.add_argument("--seed", type=int, default=0, help="which scenes, and the noise of the segmentor")
    parser.add_argument("--split", choices=["seen", "held_out", "any"], default="seen")
    parser.add_argument("--method", choices=["clusters", "propagation"], default=default.method)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    if not 1 <= options.scenes <= SCENES_PER_SEED:
        parser.error(f"--scenes is {options.scenes}; it must be 1 to {SCENES_PER_SEED}")
    try:
        config = LocalizationConfig(
            segmentation=override(replace(default, method=options.method), options.set)
        )
        scores, seconds, fingerprint = measure(
            options.scenes, options.seed, options.split, config, options.device
        )
    except IceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    figures = {**summarize(scores), "seconds_per_scene": seconds}
    settings = {
        "seed": options.seed,
        "split": options.split,
        "device": options.device,
        "localization": asdict(config),
        "model": fingerprint,
    }
    write_results(options.out, figures, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
