"""Heads as one: their mean, all alike or by weight.

All alike is how DiffSeg has it (Tian et al., CVPR 2024, arXiv 2308.12469, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor


def average(heads: Iterable[Tensor], weight: Callable[[Tensor], float]) -> Tensor:
    """Mean [P, P] of heads [P, P] by weights > 0, one head in memory after the other."""
    total, weights = None, 0.0
    for head in heads:
        share = weight(head)
        total = head * share if total is None else total.add_(head, alpha=share)
        weights += share
    assert total is not None, "a pass that recorded self-attention has heads"
    return total / weights


def symmetric(attention: Tensor) -> Tensor:
    """What two places pay to each other, in the mean: [P, P]."""
    return (attention + attention.T) / 2


def all_alike(heads: Iterable[Tensor]) -> Tensor:
    """Symmetric affinity [P, P] >= 0: the mean of heads [P, P]."""
    return symmetric(average(heads, lambda head: 1.0))
