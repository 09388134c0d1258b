"""Stage `vae`: an autoencoder, factor 8 and 8 channels, trained on crops of the renders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor

from ice_core.world.architecture import VAE_CONFIG
from world.checkpoint import Average, Budget, Due, Log, learning_rate, load_state, save_state
from world.data import RenderedSet
from world.muon import optimizers, set_share
from world.scale import scale_for

MUON_RATE, PLAIN_RATE = 0.02, 1e-3
OBJECT_WEIGHT = 2.0
"""How much more an object's pixels count than the ground's."""
EDGE_WEIGHT = 0.5
DECODER_RATE = 5e-4
LATENT_NOISE = 0.05
"""Noise on the latents that the decoder is finished on: it shall forgive what a denoiser leaves behind.
Not while the encoder learns, since it takes detail away."""
VARIANCE_WEIGHT = 0.05


@dataclass(frozen=True)
class Pictures:
    """Renders to cut pieces from, on the device: images [N, 3, S, S] uint8, covered [N, S, S] bool."""

    images: Tensor
    covered: Tensor

    @classmethod
    def of(cls, data: RenderedSet, device: torch.device) -> Pictures:
        covered = torch.cat([masks.any(1) for masks in data.masks.split(512)])
        return cls(data.images.to(device), covered.to(device))

    def __len__(self) -> int:
        return len(self.images)

    def pieces(self, picked: Tensor, top: Tensor, left: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Pieces [B, 3, side, side] in -1..1 of the pictures `picked` [B] with these corners [B] in pixels,
        and the weight [B, 1, side, side] of their pixels."""
        picked, span = picked[:, None, None], torch.arange(side, device=top.device)
        y, x = top[:, None, None] + span[:, None], left[:, None, None] + span
        cut = self.images[
            picked[:, None], torch.arange(3, device=y.device)[:, None, None], y[:, None], x[:, None]
        ]
        covered = self.covered[picked, y, x]
        return cut.float() / 127.5 - 1, 1 + OBJECT_WEIGHT * covered[:, None].float()

    def crops(self, count: int, side: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random flipped pieces and their weights; of three places in a picture the first with a twentieth
        of it covered by objects."""
        picked = torch.randint(len(self), (count,), generator=rng).to(self.images.device)
        cells = (self.images.shape[-1] - side) // 8 + 1
        corners = 8 * torch.randint(cells, (2, 3, count), generator=rng).to(picked.device)
        tries = [self.pieces(picked, top, left, side) for top, left in corners.unbind(1)] if cells > 1 else []
        x, weight = tries[-1] if tries else self.pieces(picked, *corners[:, 0], side)
        for cut, covered in tries[-2::-1]:
            good = (covered.mean((1, 2, 3), keepdim=True) - 1) > 0.05 * OBJECT_WEIGHT
            x, weight = torch.where(good, cut, x), torch.where(good, covered, weight)
        flipped = (torch.rand(count, 1, 1, 1, generator=rng) < 0.5).to(x.device)
        return torch.where(flipped, x.flip(-1), x), torch.where(flipped, weight.flip(-1), weight)


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
    minutes: float | None = None,
) -> AutoencoderTiny:
    """Train to `steps` or for `minutes`, or go on from the state in `folder`, else from `initial` weights."""
    torch.manual_seed(0)
    vae = build(device)
    if initial:
        vae.load_state_dict(initial)
    active = optimizers(vae, MUON_RATE, PLAIN_RATE)
    average, rng, step = Average(vae, 0.99), torch.Generator().manual_seed(1), 0
    budget, due, scale = Budget(steps, minutes), Due(), scale_for(device)
    if state := load_state(folder / "vae.pt"):
        vae.load_state_dict(state["model"])
        for optimizer, saved in zip(active, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        average.load(state["average"])
        step, budget.spent = state["step"], state.get("seconds", 0.0)
        rng.set_state(state["rng"])
    if step >= steps:
        vae.load_state_dict(average.state)
        return vae.eval()
    log, pictures = Log("vae", every=100), Pictures.of(data, device)
    torch.set_flush_denormal(True)
    done = budget.done(step)
    while done < 1:
        set_share(active, learning_rate(done, 1.0, warmup=0.01, decay_from=0.3))
        x, weight = pictures.crops(scale.vae_batch, scale.vae_crop, rng)
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
        step += 1
        done = budget.done(step)
        log.add(step, steps, len(x), mse=error.pow(2).mean())
        if done >= 1 or due():
            save_state(
                folder / "vae.pt",
                {
                    "model": vae.state_dict(),
                    "average": average.state,
                    "optimizers": [optimizer.state_dict() for optimizer in active],
                    "step": step,
                    "seconds": budget.seconds(),
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
    minutes: float | None = None,
) -> None:
    """Go on with the decoder alone, on the stored latents [N, 8, 16, 16]: denoisers stay valid."""
    decoder = vae.decoder
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=DECODER_RATE, betas=(0.9, 0.98))
    average, rng, step = Average(decoder, 0.99), torch.Generator().manual_seed(3), 0
    budget, due, scale = Budget(steps, minutes), Due(), scale_for(device)
    if state := load_state(folder / "decoder.pt"):
        decoder.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average.load(state["average"])
        step, budget.spent = state["step"], state.get("seconds", 0.0)
        # States of before the generator was kept go on from its beginning.
        rng.set_state(state.get("rng", rng.get_state()))
    if step >= steps:
        decoder.load_state_dict(average.state)
        return
    log, pictures, latents = Log("decoder"), Pictures.of(data, device), latents.to(device)
    side, done = scale.vae_crop // 8, budget.done(step)
    while done < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(done, DECODER_RATE)
        picked = torch.randint(len(latents), (scale.vae_batch,), generator=rng).to(device)
        row, column = torch.randint(latents.shape[-1] - side + 1, (2,), generator=rng).tolist()
        corner = torch.full_like(picked, 8)
        wanted, weight = pictures.pieces(picked, row * corner, column * corner, scale.vae_crop)
        z = latents[picked, :, row : row + side, column : column + side].float()
        z = z + LATENT_NOISE * torch.randn(z.shape, generator=rng).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            made = decoder(z.contiguous(memory_format=torch.channels_last)).float()
        error = made - wanted
        detail = (_detail(made) - _detail(wanted)).abs()
        loss = (weight * (error.abs() + 4 * error.pow(2) + EDGE_WEIGHT * detail)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        average.update(decoder, step)
        step += 1
        done = budget.done(step)
        log.add(step, steps, len(z), mse=error.pow(2).mean())
        if done >= 1 or due():
            save_state(
                folder / "decoder.pt",
                {
                    "model": decoder.state_dict(),
                    "average": average.state,
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                    "seconds": budget.seconds(),
                    "rng": rng.get_state(),
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
