"""What a step draws and how it makes a noisy latent of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ice_core.model.backbone import Prompt, TextFeatures, Token


def timestep_cdf(timesteps: int) -> Tensor:
    """Cumulative probabilities [T], float64, of density 1 - 0.5 cos(pi t / T): more noise more often.

    Source: arXiv 2503.19902, Stage Two.
    """
    t = torch.arange(timesteps, dtype=torch.float64)
    cumulated = (1 - 0.5 * torch.cos(math.pi * t / timesteps)).cumsum(0)
    return cumulated / cumulated[-1]


def draw_timesteps(cdf: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Integer timesteps [count] by inverting a table of cumulative probabilities [T]; CPU."""
    uniform = torch.rand(count, generator=generator, dtype=cdf.dtype)
    return torch.searchsorted(cdf, uniform, right=True).clamp(max=len(cdf) - 1)


def draw_noise(shape: Sequence[int], offset: float, generator: torch.Generator) -> Tensor:
    """Unit noise [B, C, h, w] plus `offset` times unit noise [B, C, 1, 1] that a channel shares; CPU."""
    noise = torch.randn(tuple(shape), generator=generator)
    return noise + offset * torch.randn((*shape[:2], 1, 1), generator=generator)


def noisy_and_target(
    latents: Tensor, noise: Tensor, signal: Tensor, prediction: Literal["epsilon", "v_prediction"]
) -> tuple[Tensor, Tensor]:
    """x_t and what a model of this kind should predict for it, both [B, C, h, w].

    signal: alphas_cumprod [B] at each sample's timestep. v = sqrt(a) noise - sqrt(1 - a) x_0 (Salimans
    and Ho 2022).
    """
    keep, spoil = (x.sqrt().view(-1, 1, 1, 1) for x in (signal, 1 - signal))
    noisy = keep * latents + spoil * noise
    return noisy, noise if prediction == "epsilon" else keep * noise - spoil * latents


def fill(template: str, said: Sequence[str | Token]) -> Prompt:
    """A prompt with words and learned tokens where the template has "{}"."""
    head, tail = (piece.strip() for piece in template.split("{}"))
    parts: list[str | Token] = [head, *said, tail]
    return Prompt(tuple(part for part in parts if part != ""))


def first(text: TextFeatures) -> TextFeatures:
    """The features of the first of B prompts, as a batch of one."""
    extra = {name: value[:1] for name, value in text.extra.items()}
    return TextFeatures(text.context[:1], text.pooled[:1], text.columns[:1], extra)
