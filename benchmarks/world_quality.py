"""How well the bundled model draws what it is told, by the judge; the figures of the model card.

    python benchmarks/world_quality.py --pictures 200 --seed 0 --out benchmarks/results/world_quality.json

Every prompt names kind, color, material, pattern and ground of one object, of combinations that were
seen in training and of combinations that never were. Also: the judge itself on fresh renders.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from PIL import Image
from results import write_results
from torch import Tensor

from ice_core.model.backbone import Prompt
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.standalone.backbone import StandaloneBackbone
from ice_core.world.bundled import load_bundled_backbone
from ice_core.world.judge import JUDGED, Judge, load_judge
from ice_core.world.renderer import render
from ice_core.world.scenes import GROUNDS, Split, combinations, sample_scene

FRESH_RENDERS = 7_000_000


def prompts(split: Split, count: int, seed: int) -> tuple[list[str], list[dict[str, str]]]:
    """Full prompts and what each asks for."""
    rng = random.Random(f"{split}-{seed}")
    wanted = []
    for kind, color, material, pattern in rng.choices(combinations(split), k=count):
        ground = rng.choice(GROUNDS)
        wanted.append(
            {"kind": kind, "color": color, "material": material, "pattern": pattern, "ground": ground}
        )
    texts = ["a photo of a {pattern} {color} {material} {kind} on {ground}".format(**w) for w in wanted]
    return texts, wanted


def accuracy(judge: Judge, images: Tensor, wanted: list[dict[str, str]]) -> dict[str, float]:
    """Share of pictures with the right value, per axis, and with everything right ("all")."""
    seen = [v for part in images.split(64) for v in judge.values(part)]
    rates = {
        axis: sum(s[axis] == w[axis] for s, w in zip(seen, wanted, strict=True)) / len(wanted)
        for axis in JUDGED
    }
    whole = sum(s == w for s, w in zip(seen, wanted, strict=True)) / len(wanted)
    return rates | {"all": whole}


def on_renders(judge: Judge, count: int) -> dict[str, float]:
    """The judge on renders of other seeds than any it was trained on."""
    scenes = [sample_scene(FRESH_RENDERS + i, "any", count=1) for i in range(count)]
    wanted = [
        {axis: s.ground if axis == "ground" else s.objects[0].value(axis) for axis in JUDGED} for s in scenes
    ]
    return accuracy(judge, render(scenes).images, wanted)


def grid(images: Tensor, columns: int = 8) -> Image.Image:
    """Pictures [B, 3, H, W] side by side."""
    rows = [torch.cat(list(row), 2) for row in images.split(columns) if len(row) == columns]
    return Image.fromarray((torch.cat(rows, 1) * 255).byte().movedim(0, -1).numpy())


def drawn(
    backbone: StandaloneBackbone, split: Split, count: int, seed: int, config: SamplingConfig
) -> tuple[Tensor, list[dict[str, str]]]:
    texts, wanted = prompts(split, count, seed)
    rng = torch.Generator().manual_seed(seed)
    return sample(backbone, [Prompt((t,)) for t in texts], config, rng, batch=16), wanted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200, help="generated pictures per split")
    parser.add_argument("--renders", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=SamplingConfig.steps)
    parser.add_argument("--guidance", type=float, default=SamplingConfig.guidance)
    parser.add_argument("--grid", type=Path, help="also write a picture of 32 samples here")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    judge, backbone = load_judge(), load_bundled_backbone()
    config = SamplingConfig(args.steps, args.guidance)
    figures = {"judge_on_renders": on_renders(judge, args.renders)}
    splits: tuple[Split, ...] = ("seen", "held_out")
    for split in splits:
        images, wanted = drawn(backbone, split, args.pictures, args.seed, config)
        figures[f"generated_{split}"] = accuracy(judge, images, wanted)
        if args.grid and split == "seen":
            grid(images[:32]).save(args.grid)
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "grid")}
    write_results(args.out, figures, settings)


if __name__ == "__main__":
    main()
