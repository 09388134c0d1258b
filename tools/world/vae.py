"""Stage `vae`: an autoencoder, factor 8 and 8 channels, trained on crops of the renders."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor

from ice_core.world.architecture import VAE_CONFIG
from world.checkpoint import Average, Log, learning_rate, load_state, save_state
from world.data import RenderedSet
from world.muon import optimizers, set_share

BATCH, CROP = 12, 64
MUON_RATE, PLAIN_RATE = 0.02, 1e-3
OBJECT_WEIGHT = 2.0
"""How much more an object's pixels count than the ground's."""
EDGE_WEIGHT = 0.5
DECODER_RATE = 5e-4
LATENT_NOISE = 0.05
"""Noise on the latents that the decoder is finished on: it shall forgive what a denoiser leaves behind.
Not while the encoder learns, since it takes detail away."""
VARIANCE_WEIGHT = 0.05


def _crops(data: RenderedSet, rng: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random flipped crops [BATCH, 3, CROP, CROP] in -1..1, most of them showing part of an object,
    and the weight [BATCH, 1, CROP, CROP] of their pixels."""
    pictures, weights = [], []
    for i in torch.randint(len(data.images), (BATCH,), generator=rng).tolist():
        for _ in range(3):
            y, x = (8 * torch.randint(0, 9, (2,), generator=rng)).tolist()
            covered = data.masks[i, :, y : y + CROP, x : x + CROP].any(0, keepdim=True).float()
            if covered.mean() > 0.05:
                break
        both = torch.cat([data.images[i, :, y : y + CROP, x : x + CROP].float() / 127.5 - 1, covered])
        both = both.flip(-1) if torch.rand((), generator=rng) < 0.5 else both
        pictures.append(both[:3])
        weights.append(1 + OBJECT_WEIGHT * both[3:])
    return torch.stack(pictures).to(device), torch.stack(weights).to(device)


def _detail(x: Tensor) -> Tensor:
    """Laplacian-like residual: what blurring takes away."""
    return x - F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)


def build(device: torch.device) -> AutoencoderTiny:
    return AutoencoderTiny(**VAE_CONFIG).to(device, memory_format=torch.channels_last)


def train(
    folder: Path,
    data: RenderedSet,
    steps: int,
    device: torch.device,
    initial: dict[str, Tensor] | None = None,
) -> AutoencoderTiny:
    """Train to `steps`, or go on from the state in `folder`, else from `initial` weights."""
    torch.manual_seed(0)
    vae = build(device)
    if initial:
        vae.load_state_dict(initial)
    active = optimizers(vae, MUON_RATE, PLAIN_RATE)
    average, rng, start = Average(vae, 0.99), torch.Generator().manual_seed(1), 0
    if state := load_state(folder / "vae.pt"):
        vae.load_state_dict(state["model"])
        for optimizer, saved in zip(active, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        average.state, start = state["average"], state["step"]
        rng.set_state(state["rng"])
    log = Log("vae", every=100)
    torch.set_flush_denormal(True)
    for step in range(start, steps):
        set_share(active, learning_rate(step / steps, 1.0, warmup=0.01, decay_from=0.3))
        x, weight = _crops(data, rng, device)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            latents = vae.encoder(x)
            y = vae.decoder(latents).float()
        error = y - x
        edges = (_detail(y) - _detail(x)).abs()
        pixel = (weight * (error.abs() + 4 * error.pow(2) + EDGE_WEIGHT * edges)).mean()
        loss = pixel + VARIANCE_WEIGHT * (latents.float().pow(2).mean() - 1).pow(2)
        for optimizer in active:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for optimizer in active:
            optimizer.step()
        average.update(vae, step)
        log.add(step + 1, steps, BATCH, mse=error.pow(2).mean().item())
        if (step + 1) % 200 == 0 or step + 1 == steps:
            save_state(
                folder / "vae.pt",
                {
                    "model": vae.state_dict(),
                    "average": average.state,
                    "optimizers": [optimizer.state_dict() for optimizer in active],
                    "step": step + 1,
                    "rng": rng.get_state(),
                },
            )
    vae.load_state_dict(average.state)
    return vae.eval()


def train_decoder(
    folder: Path,
    vae: AutoencoderTiny,
    data: RenderedSet,
    latents: Tensor,
    steps: int,
    device: torch.device,
) -> None:
    """Go on with the decoder alone, on the stored latents [N, 8, 16, 16]: denoisers stay valid."""
    decoder = vae.decoder
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=DECODER_RATE, betas=(0.9, 0.98))
    average, rng, start = Average(decoder, 0.99), torch.Generator().manual_seed(3), 0
    if state := load_state(folder / "decoder.pt"):
        decoder.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.state, start = state["average"], state["step"]
    log = Log("decoder")
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / steps, DECODER_RATE)
        picked = torch.randint(len(latents), (BATCH,), generator=rng)
        cell = torch.randint(0, 9, (2,), generator=rng).tolist()
        y, x = slice(8 * cell[0], 8 * cell[0] + CROP), slice(8 * cell[1], 8 * cell[1] + CROP)
        rows, columns = slice(cell[0], cell[0] + CROP // 8), slice(cell[1], cell[1] + CROP // 8)
        wanted = data.images[picked, :, y, x].to(device).float() / 127.5 - 1
        covered = data.masks[picked, :, y, x].any(1, keepdim=True).to(device).float()
        z = latents[picked, :, rows, columns].float()
        z = (z + LATENT_NOISE * torch.randn(z.shape, generator=rng)).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            made = decoder(z.contiguous(memory_format=torch.channels_last)).float()
        error = made - wanted
        detail = (_detail(made) - _detail(wanted)).abs()
        loss = (
            (1 + OBJECT_WEIGHT * covered) * (error.abs() + 4 * error.pow(2) + EDGE_WEIGHT * detail)
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        average.update(decoder, step)
        log.add(step + 1, steps, BATCH, mse=error.pow(2).mean().item())
        if (step + 1) % 200 == 0 or step + 1 == steps:
            save_state(
                folder / "decoder.pt",
                {
                    "model": decoder.state_dict(),
                    "average": average.state,
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
            )
    decoder.load_state_dict(average.state)


@torch.no_grad()
def encode_all(vae: AutoencoderTiny, images: Tensor, device: torch.device) -> Tensor:
    """Latents [N, 8, 16, 16] in half precision."""
    parts = []
    for chunk in images.split(64):
        x = (chunk.to(device).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            parts.append(vae.encoder(x).float().half().cpu())
    return torch.cat(parts)
