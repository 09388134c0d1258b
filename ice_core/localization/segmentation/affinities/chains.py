"""Attention as a Markov chain: heads by their second eigenvalue, followed for two bounces.

Erel et al., "Attention (as Discrete-Time Markov) Chains", NeurIPS 2025, arXiv 2507.17657: what a place
attends to indirectly gathers in parts that a chain hardly leaves, and the second largest eigenvalue of a head
says how distinct its parts are.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ice_core.localization.segmentation.affinities.average import average, symmetric

_ROUNDS = 40
_COUNTED = 10
"""Of the rounds, the last, over which growth is averaged: a pair of complex eigenvalues makes it swing."""
_LEAST = 1e-6


def second_eigenvalue(attention: Tensor) -> float:
    """Size of the second largest eigenvalue of row-stochastic attention [P, P], by iteration beside the first
    (whose vectors are the steady state and ones)."""
    steady = attention.new_full((len(attention),), 1 / len(attention))
    for _ in range(_ROUNDS):
        steady = steady @ attention
    # Of every frequency, so that hardly any eigenvector is missing; the same in every run.
    vector = torch.linspace(-1, 1, len(attention), device=attention.device, dtype=attention.dtype)
    vector = vector + torch.sin(vector * 12.9898 * len(attention))
    growth = []
    for _ in range(_ROUNDS):
        vector = attention @ vector
        vector = vector - steady @ vector
        length = float(vector.norm())
        if length < _LEAST:
            return 0.0
        growth.append(length)
        vector = vector / length
    last = torch.tensor(growth[-_COUNTED:])
    return float(last.log().mean().exp().clamp(max=1))


def two_bounces(heads: Iterable[Tensor]) -> Tensor:
    """Symmetric affinity [P, P] >= 0: the second power of the mean of heads [P, P] by their second
    eigenvalue."""
    chain = average(heads, lambda head: second_eigenvalue(head) + _LEAST)
    return symmetric(chain @ chain)
