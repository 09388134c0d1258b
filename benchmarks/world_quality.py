"""How well the bundled model draws what it is told, by the judge; the figures of the model card.

    python benchmarks/world_quality.py --pictures 200 --seed 0 --out benchmarks/results/world_quality.json

Every prompt names kind, color, material, pattern and ground of one object, of combinations that were
seen in training and of combinations that never were. Also:
- the judge itself on fresh renders: classes, and the median errors of its gauges (CIEDE2000 of both paints,
  relative error of the pattern's scale);
- the autoencoder alone on fresh renders, in dB;
- `between`: for pairs of neighboring color names, the median hue of pictures prompted with the mean of the
  two names' rows, at their mean norm, against those of the names themselves;
- `axis_words`: cosines of the pooled features of "color", "material" and "pattern" to each other, and to the
  means of their own and of the other axes' values.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from results import write_results
from skimage.color import lab2lch
from torch import Tensor

from ice_core.model.backbone import Prompt, Token
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.standalone.backbone import StandaloneBackbone
from ice_core.world.bundled import load_bundled_backbone, load_bundled_towers
from ice_core.world.colors import NAMES, hue, lab, lab_difference
from ice_core.world.renderer import render
from ice_core.world.scenes import AXES, GROUNDS, INTRINSIC_AXES, Split, combinations, sample_scene
from tools.world.judging import JUDGED, Judge, load_judge

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


def gauges_on_renders(judge: Judge, count: int) -> dict[str, float]:
    """Median errors of the judge's gauges on the same renders, of patterns where there is one."""
    scenes = [sample_scene(FRESH_RENDERS + i, "any", count=1) for i in range(count)]
    items = [s.objects[0] for s in scenes]
    seen = judge.measures(render(scenes).images)
    patterned = np.array([o.pattern != "plain" for o in items])
    base = lab_difference(seen.base.numpy(), lab([o.paint for o in items]))
    second = lab_difference(seen.second.numpy(), lab([o.second_rgb for o in items]))
    scale = np.abs(seen.scale.log().numpy() - np.log([o.scale for o in items]))
    return {
        "base_ciede2000": round(float(np.median(base)), 3),
        "second_ciede2000": round(float(np.median(second[patterned])), 3),
        "scale_relative": round(float(np.median(scale[patterned])), 4),
    }


@torch.no_grad()
def autoencoder_quality(backbone: StandaloneBackbone, count: int) -> float:
    """Mean PSNR in dB of fresh renders of one to three objects, encoded and decoded."""
    images = render([sample_scene(FRESH_RENDERS + 500_000 + i, "any") for i in range(count)]).images
    again = torch.cat([backbone.decode_latent(backbone.encode_image(x)) for x in images.split(16)])
    return round((-10 * (again - images).pow(2).mean((1, 2, 3)).log10()).mean().item(), 2)


def between(
    backbone: StandaloneBackbone, judge: Judge, pictures: int, seed: int, config: SamplingConfig
) -> dict[str, object]:
    """Hues in degrees per pair of neighbors: of the first name, of the mean of both rows, of the second."""
    names = sorted(NAMES, key=lambda name: float(hue(NAMES[name])))
    rows = {name: backbone.word_rows(name) for name in names}
    tokens = {name: Token(name, r) for name, r in rows.items()}
    pairs = list(zip(names, names[1:] + names[:1], strict=True))
    for first, second in pairs:
        tokens[f"{first}-{second}"] = Token("mean", _mean(rows[first], rows[second]))
    hues = {}
    for name, token in tokens.items():
        rng = torch.Generator().manual_seed(seed)
        prompts = [Prompt(("a photo of a", token, f"rubber {kind}")) for kind in AXES["kind"]]
        prompts = (prompts * pictures)[:pictures]
        base = judge.measures(sample(backbone, prompts, config, rng, batch=16)).base
        # A hue is an angle: the median is taken of the colors, not of numbers that wrap around.
        hues[name] = float(lab2lch(base.median(0).values.numpy())[2]) * 180 / math.pi
    shown = {f"{a}-{b}": [round(hues[n], 1) for n in (a, f"{a}-{b}", b)] for a, b in pairs}
    inside = [strictly_between(*angles) for angles in shown.values()]
    return {"hues": shown, "strictly_between": sum(inside) / len(inside)}


def strictly_between(first: float, middle: float, second: float) -> bool:
    """Whether a hue lies between two others, in degrees, on the way from the first up to the second. Names
    whose hues came out the other way round have nothing between them."""
    return 0 < (middle - first) % 360 < (second - first) % 360 < 180


def _mean(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean of two words' rows per encoder, at the mean of their norms."""
    means = {}
    for encoder, row in first.items():
        mean, norm = (row + second[encoder]) / 2, (row.norm() + second[encoder].norm()) / 2
        means[encoder] = mean * norm / mean.norm()
    return means


@torch.no_grad()
def axis_words(backbone: StandaloneBackbone) -> dict[str, object]:
    """Cosines of the axes' own words to each other, and to the mean of each axis' values."""

    towers = load_bundled_towers(backbone)
    own = towers.encode_texts(list(INTRINSIC_AXES))
    means = F.normalize(
        torch.stack([towers.encode_texts(list(AXES[a])).mean(0) for a in INTRINSIC_AXES]), dim=-1
    )
    return {
        "to_each_other": {
            f"{a}-{b}": round((own[i] @ own[j]).item(), 3)
            for (i, a), (j, b) in itertools.combinations(enumerate(INTRINSIC_AXES), 2)
        },
        "to_values": {
            a: {b: round((own[i] @ means[j]).item(), 3) for j, b in enumerate(INTRINSIC_AXES)}
            for i, a in enumerate(INTRINSIC_AXES)
        },
    }


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
    parser.add_argument("--between-pictures", type=int, default=20, help="pictures per hue")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=SamplingConfig.steps)
    parser.add_argument("--guidance", type=float, default=SamplingConfig.guidance)
    parser.add_argument("--rescale", type=float, default=SamplingConfig.rescale)
    parser.add_argument("--eta", type=float, default=SamplingConfig.eta)
    parser.add_argument("--grid", type=Path, help="also write a picture of 32 samples here")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    judge, backbone = load_judge(), load_bundled_backbone()
    config = SamplingConfig(args.steps, args.guidance, args.rescale, args.eta)
    figures: dict[str, object] = {
        "judge_on_renders": on_renders(judge, args.renders) | gauges_on_renders(judge, args.renders),
        "autoencoder_psnr": autoencoder_quality(backbone, 64),
        "axis_words": axis_words(backbone),
        "between": between(backbone, judge, args.between_pictures, args.seed, config),
    }
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
