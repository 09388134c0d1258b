"""Noisy latents and what is drawn for them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ice_core.model.noising import draw_noise, draw_timesteps, noisy_and_target, timestep_cdf


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_timesteps_follow_the_stated_density() -> None:
    count, bins = 200_000, 20
    drawn = draw_timesteps(timestep_cdf(1000), count, torch.Generator().manual_seed(0))
    assert drawn.min() >= 0
    assert drawn.max() <= 999
    density = 1 - 0.5 * torch.cos(math.pi * torch.arange(1000, dtype=torch.float64) / 1000)
    expected = (density / density.sum()).view(bins, -1).sum(1)
    observed = torch.bincount(drawn // (1000 // bins), minlength=bins) / count
    deviation = (observed - expected) / (expected / count).sqrt()
    assert deviation.abs().max() < 4
    assert observed[-1] > 2.5 * observed[0]


def test_noise_offset_is_shared_by_a_channel() -> None:
    noise = draw_noise((400, 4, 8, 8), 0.1, torch.Generator().manual_seed(0))
    # The mean of 64 unit normals has variance 1/64; the shared offset adds 0.01.
    assert noise.mean((2, 3)).var().item() == pytest.approx(1 / 64 + 0.01, rel=0.15)


def test_targets_are_noise_or_velocity() -> None:
    latents, noise, signal = normal(2, 4, 3, 3), normal(2, 4, 3, 3, seed=1), torch.tensor([0.9, 0.2]).double()
    noisy, epsilon = noisy_and_target(latents, noise, signal, "epsilon")
    same, velocity = noisy_and_target(latents, noise, signal, "v_prediction")
    keep, spoil = signal.sqrt().view(-1, 1, 1, 1), (1 - signal).sqrt().view(-1, 1, 1, 1)
    assert epsilon is noise
    assert torch.equal(noisy, same)
    torch.testing.assert_close(keep * noisy - spoil * velocity, latents)
    torch.testing.assert_close(spoil * noisy + keep * velocity, noise)
