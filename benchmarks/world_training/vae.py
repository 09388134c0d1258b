"""Stage `vae`: a KL autoencoder, factor 8 and 4 channels, trained on crops of the renders."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from ice_core.world.architecture import VAE_CONFIG
from world_training.checkpoint import Average, Log, learning_rate, load_state, save_state
from world_training.data import RenderedSet

BATCH, CROP, PEAK_RATE, KL_WEIGHT = 12, 64, 1.2e-3, 1e-6


def _crops(data: RenderedSet, rng: torch.Generator, device: torch.device) -> Tensor:
    """Random flipped crops [BATCH, 3, CROP, CROP] in -1..1, most of them showing part of an object."""
    out = []
    for i in torch.randint(len(data.images), (BATCH,), generator=rng).tolist():
        best = None
        for _ in range(3):
            y, x = (8 * torch.randint(0, 9, (2,), generator=rng)).tolist()
            part = data.masks[i, :, y : y + CROP, x : x + CROP]
            best = (y, x)
            if part.float().mean() > 0.02:
                break
        y, x = best or (0, 0)
        crop = data.images[i, :, y : y + CROP, x : x + CROP]
        out.append(crop.flip(-1) if torch.rand((), generator=rng) < 0.5 else crop)
    return torch.stack(out).to(device).float() / 127.5 - 1


def _detail(x: Tensor) -> Tensor:
    """Laplacian-like residual: what blurring takes away."""
    return x - F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)


def train(folder: Path, data: RenderedSet, steps: int, device: torch.device) -> AutoencoderKL:
    torch.manual_seed(0)
    vae = AutoencoderKL(**VAE_CONFIG).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=1e-3)
    average, rng, start = Average(vae, 0.998), torch.Generator().manual_seed(1), 0
    if state := load_state(folder / "vae.pt"):
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.state, start = state["average"], state["step"]
        rng.set_state(state["rng"])
    log = Log("vae")
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / steps, PEAK_RATE)
        x = _crops(data, rng, device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample()).sample.float()
        detail = (_detail(y) - _detail(x)).abs().mean()
        coarse = (F.avg_pool2d(y, 4) - F.avg_pool2d(x, 4)).abs().mean()
        pixel = (y - x).abs().mean() + (y - x).pow(2).mean()
        loss = pixel + detail + 0.5 * coarse + KL_WEIGHT * posterior.kl().float().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update(vae, step)
        log.add(step + 1, steps, BATCH, pixel=pixel.item(), detail=detail.item())
        if (step + 1) % 200 == 0 or step + 1 == steps:
            save_state(
                folder / "vae.pt",
                {
                    "model": vae.state_dict(),
                    "average": average.state,
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                    "rng": rng.get_state(),
                },
            )
    vae.load_state_dict(average.state)
    return vae.eval()


@torch.no_grad()
def calibrate(vae: AutoencoderKL, data: RenderedSet, device: torch.device) -> None:
    """Fold a scale into the quantisation convolutions so that latents times 0.18215 have unit variance.

    Stable Diffusion's own constant then fits, and every host handles the latents as it always does.
    """
    images = data.images[:256].to(device).float() / 127.5 - 1
    mean = vae.encode(images.contiguous(memory_format=torch.channels_last)).latent_dist.mean
    scale = float(1 / (VAE_CONFIG["scaling_factor"] * mean.std()))
    half = VAE_CONFIG["latent_channels"]
    vae.quant_conv.weight[:half] *= scale
    vae.quant_conv.bias[:half] *= scale
    vae.quant_conv.bias[half:] += 2 * torch.tensor(scale).log().to(device)
    vae.post_quant_conv.weight /= scale


@torch.no_grad()
def encode_all(vae: AutoencoderKL, images: Tensor, device: torch.device) -> Tensor:
    """Scaled latents [2, N, 4, 16, 16] in half precision: plain, and of the mirrored pictures."""
    out = []
    for pictures in (images, images.flip(-1)):
        parts = []
        for chunk in pictures.split(128):
            x = (chunk.to(device).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16):
                mean = vae.encode(x).latent_dist.mean.float()
            parts.append((mean * VAE_CONFIG["scaling_factor"]).half().cpu())
        out.append(torch.cat(parts))
    return torch.stack(out)
