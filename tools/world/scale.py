"""How much a training takes at once, by what it runs on."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Scale:
    """Pictures per step of each stage; crop: side of the autoencoder's pieces of pictures in pixels;
    workers: processes that write captions for the U-Net, 0 for none beside the training itself."""

    vae_batch: int
    vae_crop: int
    judge_batch: int
    unet_batch: int
    workers: int


def scale_for(device: torch.device) -> Scale:
    """On a CPU few pictures a step, in many steps; an accelerator idles on those."""
    if device.type == "cpu":
        return Scale(vae_batch=12, vae_crop=64, judge_batch=64, unet_batch=32, workers=0)
    workers = max(1, (os.cpu_count() or 2) - 2)
    return Scale(vae_batch=32, vae_crop=128, judge_batch=256, unet_batch=1024, workers=workers)
