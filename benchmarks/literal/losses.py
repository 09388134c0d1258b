"""The terms of the loss, each as its sentence in the paper says it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def denoising(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error inside the mask. prediction, target: [B, C, h, w]; mask: [B, 1, h, w] in 0..1."""
    inside = mask.expand_as(prediction)
    return (inside * (prediction - target) ** 2).sum() / inside.sum()


def transport(attention: Tensor, mask: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Entropic transport cost between two maps [H, W] of one size, neither all zero.

    Euclidean distance between cells, in sides of the map; Sinkhorn's iterations (Cuturi, NeurIPS 2013) on the
    potentials, each of them differentiated. On the scaling factors, as published, they are 0 / 0 in float32
    at an entropy of 1e-3.
    """
    rows, columns = (torch.arange(n, dtype=torch.float32) / max(mask.shape) for n in mask.shape)
    cells = torch.cartesian_prod(rows, columns).to(attention)
    cost = torch.cdist(cells, cells)
    a, b = (attention / attention.sum()).flatten(), (mask / mask.sum()).flatten()
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    for _ in range(iterations):
        g = -epsilon * torch.logsumexp((f[:, None] - cost) / epsilon + a.log()[:, None], 0)
        f = -epsilon * torch.logsumexp((g[None] - cost) / epsilon + b.log()[None], 1)
    return (f * a).sum() + (g * b).sum()


def object_triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Phase 1's hinge on squared distances; all [P]."""
    distance = ((anchor - positive) ** 2).sum() - ((anchor - negative) ** 2).sum()
    return (distance + margin).clamp(min=0)


def intrinsic_triplets(
    words: Sequence[Tensor], tokens: Sequence[Tensor], label: Tensor, object_: Tensor, scale: float
) -> Tensor:
    """Phase 2's element-wise hinges, over the count of those that are active; all [P], words and tokens
    one per axis."""
    hinges = []
    for k, word in enumerate(words):
        for j, other in enumerate(words):
            if j != k:
                margin = scale * (word - other) ** 2
                hinges.append((word - tokens[k]) ** 2 - (word - tokens[j]) ** 2 + margin)
    for word, token in zip(words, tokens, strict=True):
        margin = scale * (label - word) ** 2
        hinges.append((label - object_) ** 2 - (label - token) ** 2 + margin)
    hinge = torch.stack(hinges).clamp(min=0)
    return hinge.sum() / ((hinge > 0).sum() + 1e-16)
