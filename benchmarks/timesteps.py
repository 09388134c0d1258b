"""Which timesteps know a shade? Denoising losses of color words inside an object, by noise level.

    python benchmarks/timesteps.py --objects 16 --seed 3 --out benchmarks/results/timesteps.json

Per band of timesteps (shares of the schedule), for the first object of every scene and the color words that
are nearest to its paint: `correlation` of a word's loss with its distance (CIEDE2000) to the paint, and
`excess`: how much farther the word with the least loss is than the nearest one. Means over objects.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from results import write_results

from ice_core.model.backbone import Prompt, TextFeatures
from ice_core.model.noising import noisy_and_target
from ice_core.world.bundled import load_bundled_backbone
from ice_core.world.colors import FINE_NAMES, NAMES, lab, lab_difference
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene

FIRST_SEED = 8_000_000
BANDS = ((0.05, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.75), (0.75, 0.9), (0.9, 1.0))
WORDS, NOISES = 12, 12


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    backbone, named = load_bundled_backbone(), {**NAMES, **FINE_NAMES}
    last = len(backbone.alphas_cumprod) - 1
    found: dict[tuple[float, float], list[tuple[float, float]]] = {band: [] for band in BANDS}
    for n in range(args.objects):
        scene = sample_scene(FIRST_SEED + 10_000 * args.seed + n, "seen")
        rendered, item = render([scene]), scene.objects[0]
        latent = backbone.encode_image(rendered.images)
        mask = F.adaptive_avg_pool2d(rendered.masks[:, :1].float(), latent.shape[-2:])
        distance = {name: float(lab_difference(lab(item.paint), lab(rgb))) for name, rgb in named.items()}
        near = sorted(distance, key=lambda name: distance[name])[:WORDS]
        far = np.array([distance[name] for name in near])
        for band in BANDS:
            share = band[0] + (band[1] - band[0]) * (torch.arange(NOISES) + 0.5) / NOISES
            timesteps = (share * last).long()
            noise = torch.randn(NOISES, *latent.shape[1:], generator=torch.Generator().manual_seed(n))
            noisy, target = noisy_and_target(
                latent, noise, backbone.alphas_cumprod[timesteps], backbone.prediction
            )
            losses = []
            for name in near:
                said = f"a photo of a {item.pattern} {name} {item.material} {item.kind}"
                text: TextFeatures = backbone.encode_prompts([Prompt((said,))]).repeat(NOISES)
                error = (backbone.predict(noisy, timesteps, text) - target) ** 2 * mask
                losses.append(float(error.mean()))
            known = np.array(losses)
            excess = float(far[known.argmin()] - far.min())
            found[band].append((float(np.corrcoef(known, far)[0, 1]), excess))
    figures = {
        f"{low:g}-{high:g}": dict(
            zip(("correlation", "excess"), np.mean(found[low, high], 0).round(3).tolist(), strict=True)
        )
        for low, high in BANDS
    }
    write_results(args.out, figures, {"objects": args.objects, "seed": args.seed})


if __name__ == "__main__":
    main()
