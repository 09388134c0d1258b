"""How much of a picture is left at each timestep."""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST_SIGNAL = 4.8973451890853435e-08
"""Of the last timestep where nothing should be left: hosts keep this much, so that logarithms stay finite."""


def signal_variances(zero_terminal: bool) -> Tensor:
    """alphas_cumprod [1000], float32, of every Stable Diffusion: betas are evenly spaced in their roots.

    zero_terminal: stretched so that the last timestep is pure noise (Lin et al., "Common Diffusion Noise
    Schedules and Sample Steps are Flawed", arXiv 2305.08891, algorithm 1).
    """
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    variances = (1 - betas).cumprod(0)
    if zero_terminal:
        roots = variances.sqrt()
        variances = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
        variances[-1] = _LEAST_SIGNAL
    return variances.float()
