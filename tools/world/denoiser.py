"""Stage `unet`: a v-predicting U-Net on the frozen latents and text features, grounded.

With noise as the target, 20 000 samples left grounds and colours to chance: at high noise a small model
must copy its input to a part in a thousand before what it knows of the picture counts. The velocity
(Salimans and Ho 2022) asks for the picture itself there.

At this size words do not find their objects by themselves. An auxiliary loss holds the share of a
word's cross-attention that lies inside its object's mask up (background words: outside all objects),
at every resolution and for t < 700.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from ice_core.world.architecture import UNET_CONFIG
from ice_core.world.captions import caption, mixed
from world.checkpoint import Average, Log, learning_rate, load_state, save_state
from world.data import RenderedSet
from world.muon import optimizers, set_share
from world.processes import average_gradients, join
from world.tokens import Tokens, plain, tokenize

BATCH, MUON_RATE, PLAIN_RATE = 32, 0.01, 8e-4
CAPTION_DROPOUT = 0.1
MIXED_CAPTIONS, MIXED_WORDS = 0.5, 0.6
"""Share of captions with mixtures of words in them, and of their property words that are mixed."""
GROUNDING_WEIGHT, GROUNDING_BELOW = 0.02, 700
OBJECT_WEIGHT = 2.0
"""How much more an object's pixels count than the ground's: grounds come out right long before objects do."""
LEAST_MASS = 0.15
"""A word group's attention on its own object, summed over its tokens, is held above this."""


class CrossAttentionProbe:
    """diffusers attention processor: explicit softmax where it is wanted, its probabilities kept."""

    def __init__(self) -> None:
        self.maps: list[Tensor] = []

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **unused: Any,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            layer(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, x in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        weights = (query * attn.scale @ key.transpose(-1, -2)).softmax(-1)
        if encoder_hidden_states is not None:
            self.maps.append(weights.float().mean(1))
        out = (weights.to(value.dtype) @ value).transpose(1, 2).flatten(-2)
        return attn.to_out[0](out)


def grounding_loss(maps: list[Tensor], owners: Tensor, masks: Tensor, active: Tensor) -> Tensor:
    """Minus the log of the share of each word's attention inside its mask, plus a floor on its mass.

    maps: [B, Q, 77] per layer; owners: [B, 77, 4]; masks: [B, 4, S, S] in 0..1; active: [B].
    """
    spoken = owners.amax(-1) * active[:, None]
    total = maps[0].new_zeros(())
    for weights in maps:
        side = int(weights.shape[1] ** 0.5)
        area = F.adaptive_avg_pool2d(masks, side).flatten(2)
        target = (owners @ area).clamp(max=1)
        inside = (weights.transpose(1, 2) * target).sum(-1)
        share = inside / weights.sum(1).clamp(min=1e-8)
        located = spoken * (target.sum(-1) > 0.5)
        total = total + (-(share + 1e-4).log() * located).sum() / located.sum().clamp(min=1)
        group = torch.einsum("bqt,bto->boq", weights, owners)
        mass = (group * area).sum(-1) / area.sum(-1).clamp(min=1e-4)
        present = (owners.amax(1) > 0) * (area.sum(-1) > 0.5) * active[:, None]
        short = (1 - mass / LEAST_MASS).clamp(min=0)
        total = total + (short * present).sum() / present.sum().clamp(min=1)
    return total / len(maps)


def _batch(
    latents: Tensor, data: RenderedSet, masks: Tensor, rng: random.Random
) -> tuple[Tensor, Tokens, Tensor]:
    """Latents [B, 8, 16, 16], captions, masks [B, 4, 16, 16] (three objects and ground).

    Half of the captions say some properties by mixtures of words.
    """
    picked = [rng.randrange(len(latents)) for _ in range(BATCH)]
    x, m = latents[picked].float(), masks[picked].float()
    said = []
    for scene in (data.scenes[i] for i in picked):
        text = caption(scene, rng)
        if rng.random() < CAPTION_DROPOUT:
            text = plain("")
        elif rng.random() < MIXED_CAPTIONS:
            text = mixed(text, scene, rng, MIXED_WORDS)
        said.append(text)
    return x, tokenize(said), m


def latent_masks(data: RenderedSet) -> Tensor:
    """[N, 4, 16, 16] half: coverage of each object and of the ground."""
    cover = torch.cat([F.avg_pool2d(m.float(), 8) for m in data.masks.split(512)])
    return torch.cat([cover, 1 - cover.sum(1, keepdim=True)], 1).half()


def encode_text(model: open_clip.CLIP, tokens: Tokens) -> Tensor:
    """Last hidden states after the final norm [B, 77, D], as Stable Diffusion 1 conditions on them.

    A mixture of rows is brought to the mean of its rows' norms, as learned tokens are.
    """
    table = model.token_embedding.weight
    rows = table[tokens.ids.to(table.device)]
    for row, position, parts in tokens.mixes:
        ids, weights = zip(*parts, strict=True)
        share = torch.tensor(weights, device=table.device)
        picked = table[list(ids)]
        mixed = share @ picked
        rows[row, position] = mixed * (share @ picked.norm(dim=-1)) / mixed.norm()
    x = rows + model.positional_embedding
    return model.ln_final(model.transformer(x, attn_mask=model.attn_mask))


def _timesteps(rng: torch.Generator) -> Tensor:
    """[B], uniform, but every third from 400 to 900: there kinds and places are decided."""
    t = torch.randint(1000, (BATCH,), generator=rng)
    t[::3] = torch.randint(400, 900, (len(t[::3]),), generator=rng)
    return t


def schedule() -> DDPMScheduler:
    return DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)


def train(
    folder: Path,
    data: RenderedSet,
    latents: Tensor,
    text: nn.Module,
    steps: int,
    device: torch.device,
    initial: dict[str, Tensor] | None = None,
    compiled: bool = False,
    peak: float = 1.0,
) -> UNet2DConditionModel:
    """Train to `steps`, or go on from the state in `folder`, else from `initial` weights.

    Each of several processes draws BATCH samples per step. peak: of the learning rate, as a share of the one
    that training from nothing begins with.
    """
    rank, together = join()
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET_CONFIG).to(device, memory_format=torch.channels_last)
    if initial:
        unet.load_state_dict(initial)
    probe = CrossAttentionProbe()
    unet.set_attn_processor(probe)
    denoise = torch.compile(unet) if compiled else unet
    active = optimizers(unet, MUON_RATE, PLAIN_RATE)
    average, start = Average(unet, 0.998), 0
    if state := load_state(folder / "unet.pt"):
        unet.load_state_dict(state["model"])
        for optimizer, saved in zip(active, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        average.state, start = state["average"], state["step"]
    seed = start * together + rank
    rng = random.Random(seed)
    noise_rng = torch.Generator().manual_seed(seed)
    masks = latent_masks(data)
    alphas = schedule().alphas_cumprod.to(device)
    log = Log("unet", every=50)
    for step in range(start, steps):
        set_share(active, learning_rate(step / steps, peak))
        x, tokens, m = _batch(latents, data, masks, rng)
        x, m, owners = x.to(device), m.to(device), tokens.owners.to(device)
        t = _timesteps(noise_rng).to(device)
        noise = torch.randn(x.shape, generator=noise_rng).to(device)
        a = alphas[t].view(-1, 1, 1, 1)
        noisy = (a.sqrt() * x + (1 - a).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            context = encode_text(text, tokens)
        probe.maps.clear()
        with torch.autocast(device.type, torch.bfloat16):
            predicted = denoise(noisy, t, context).sample
        velocity = a.sqrt() * noise - (1 - a).sqrt() * x
        squares = (predicted.float() - velocity).pow(2)
        weight = 1 + OBJECT_WEIGHT * m[:, :3].sum(1, keepdim=True).clamp(max=1)
        error = (weight * squares).mean() / weight.mean()
        grounding = grounding_loss(probe.maps, owners, m, (t < GROUNDING_BELOW).float())
        loss = error + GROUNDING_WEIGHT * grounding
        for optimizer in active:
            optimizer.zero_grad()
        loss.backward()
        average_gradients(unet.parameters())
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        for optimizer in active:
            optimizer.step()
        average.update(unet, step)
        if rank:
            continue
        mse = squares.mean().item()
        log.add(step + 1, steps, BATCH * together, error=error.item(), mse=mse, grounding=grounding.item())
        if (step + 1) % 200 == 0 or step + 1 == steps:
            save_state(
                folder / "unet.pt",
                {
                    "model": unet.state_dict(),
                    "average": average.state,
                    "optimizers": [optimizer.state_dict() for optimizer in active],
                    "step": step + 1,
                },
            )
    unet.load_state_dict(average.state)
    return unet.eval()
