"""Stage `unet`: a v-predicting U-Net on the frozen latents and text features, grounded.

With noise as the target, 20 000 samples left grounds and colours to chance: at high noise a small model
must copy its input to a part in a thousand before what it knows of the picture counts. The velocity
(Salimans and Ho 2022) asks for the picture itself there.

At this size words do not find their objects by themselves. An auxiliary loss holds the share of a
word's cross-attention that lies inside its object's mask up (background words: outside all objects),
at every resolution and for t < 700.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from ice_core.world.architecture import UNET_CONFIG
from world.captioned import captioned_batches
from world.checkpoint import Average, Budget, Due, Log, learning_rate, load_state, save_state
from world.data import RenderedSet
from world.muon import optimizers, set_share
from world.processes import average_gradients, join
from world.scale import scale_for
from world.tokens import Tokens

MUON_RATE, PLAIN_RATE = 0.01, 8e-4
GROUNDING_WEIGHT, GROUNDING_BELOW = 0.02, 700
OBJECT_WEIGHT = 2.0
"""How much more an object's pixels count than the ground's: grounds come out right long before objects do."""
LEAST_MASS = 0.15
"""A word group's attention on its own object, summed over its tokens, is held above this."""


class CrossAttentionProbe:
    """diffusers attention processor that keeps the probabilities of cross-attention, averaged over heads."""

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
        if encoder_hidden_states is None:
            out = F.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        else:
            weights = (query * attn.scale @ key.transpose(-1, -2)).softmax(-1)
            self.maps.append(weights.float().mean(1))
            out = weights.to(value.dtype) @ value
        return attn.to_out[0](out.transpose(1, 2).flatten(-2))


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


def latent_masks(data: RenderedSet) -> Tensor:
    """[N, 4, 16, 16] half: coverage of each object and of the ground."""
    cover = torch.cat([F.avg_pool2d(m.float(), 8) for m in data.masks.split(512)])
    return torch.cat([cover, 1 - cover.sum(1, keepdim=True)], 1).half()


def encode_text(model: open_clip.CLIP, tokens: Tokens) -> Tensor:
    """Last hidden states after the final norm [B, 77, D], as Stable Diffusion 1 conditions on them.

    A mixture of rows is brought to the mean of its rows' norms, as learned tokens are.
    """
    table = model.token_embedding.weight
    tokens = tokens.to(table.device)
    rows = table[tokens.ids]
    if len(tokens.mixed_at):
        parts, weights = table[tokens.mixed_ids], tokens.mixed_weights[..., None]
        mixed = (weights * parts).sum(1)
        norms = (weights * parts.norm(dim=-1, keepdim=True)).sum(1)
        row, position = tokens.mixed_at.unbind(1)
        rows[row, position] = mixed * norms / mixed.norm(dim=-1, keepdim=True)
    x = rows + model.positional_embedding
    return model.ln_final(model.transformer(x, attn_mask=model.attn_mask))


def _timesteps(count: int, rng: torch.Generator) -> Tensor:
    """[count], uniform, but every third from 400 to 900: there kinds and places are decided."""
    t = torch.randint(1000, (count,), generator=rng, device=rng.device)
    t[::3] = torch.randint(400, 900, (len(t[::3]),), generator=rng, device=rng.device)
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
    minutes: float | None = None,
) -> UNet2DConditionModel:
    """Train to `steps` or for `minutes`, or go on from the state in `folder`, else from `initial` weights.

    Each of several processes draws a batch per step. peak: of the learning rate, as a share of the one that
    training from nothing begins with.
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
    average, start, budget = Average(unet, 0.998), 0, Budget(steps, minutes)
    if state := load_state(folder / "unet.pt"):
        unet.load_state_dict(state["model"])
        for optimizer, saved in zip(active, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        average.load(state["average"])
        start, budget.spent = state["step"], state.get("seconds", 0.0)
    if start >= steps:
        unet.load_state_dict(average.state)
        return unet.eval()
    seed, scale = start * together + rank, scale_for(device)
    rng = torch.Generator(device).manual_seed(seed)
    latents, masks = latents.to(device), latent_masks(data).to(device)
    alphas = schedule().alphas_cumprod.to(device)
    log, due, step = Log("unet", every=50), Due(), start
    batches = captioned_batches(data.scenes[: len(latents)], scale.unet_batch, seed, scale.workers)
    done = budget.done(step)
    while done < 1:
        set_share(active, learning_rate(done, peak))
        picked, tokens = next(batches)
        picked, tokens = picked.to(device), tokens.to(device)
        x, m, owners = latents[picked].float(), masks[picked].float(), tokens.owners
        t = _timesteps(len(x), rng)
        noise = torch.randn(x.shape, generator=rng, device=device)
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
        step += 1
        done = budget.done(step)
        if rank:
            continue
        log.add(step, steps, len(x) * together, error=error, mse=squares.mean(), grounding=grounding)
        if done >= 1 or due():
            save_state(
                folder / "unet.pt",
                {
                    "model": unet.state_dict(),
                    "average": average.state,
                    "optimizers": [optimizer.state_dict() for optimizer in active],
                    "step": step,
                    "seconds": budget.seconds(),
                },
            )
    unet.load_state_dict(average.state)
    return unet.eval()
