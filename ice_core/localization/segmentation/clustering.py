"""Regions of similar self-attention.

DiffSeg: Tian et al., "Diffuse, Attend, and Segment: Unsupervised Zero-Shot Segmentation using Stable
Diffusion", CVPR 2024, arXiv 2308.12469.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.localization.segmentation.config import SegmentationConfig
from ice_core.model.attention import Size

_LEAST = 1e-10


def largest(sizes: Mapping[Size, Tensor]) -> Size:
    """The size (height, width) of most positions."""
    return max(sizes, key=lambda size: size[0] * size[1])


def upsample(maps: Tensor, size: Size) -> Tensor:
    """[N, h, w] -> [N, *size], bilinear."""
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def aggregate(self_attention: Mapping[Size, Tensor]) -> Tensor:
    """One distribution per position of the largest size: [P, P], every row sums to 1.

    self_attention: {(h, w): [h*w, h*w]}. Section 3.2: keys are upsampled, queries repeated, sizes
    weighted in proportion to their side.
    """
    height, width = largest(self_attention)
    total = torch.zeros(height * width, height * width, device=next(iter(self_attention.values())).device)
    sides = sum(h for h, _ in self_attention)
    for (h, w), attention in self_attention.items():
        keys = upsample(attention.float().unflatten(1, (h, w)), (height, width)).flatten(1)
        keys *= h / sides / keys.sum(1, keepdim=True)
        rows = torch.arange(height, device=keys.device) * h // height
        columns = torch.arange(width, device=keys.device) * w // width
        total += keys[(rows[:, None] * w + columns).flatten()]
    return total


def symmetric_kl(p: Tensor, q: Tensor) -> Tensor:
    """(KL(p|q) + KL(q|p)) / 2 in nats between distributions p [N, K] and q [M, K]: [N, M].

    As products of matrices, because the N x M x K differences of 64 x 64 maps would not fit in memory.
    """
    log_p, log_q = p.clamp(min=_LEAST).log(), q.clamp(min=_LEAST).log()
    own = (p * log_p).sum(-1)[:, None] + (q * log_q).sum(-1)
    return ((own - p @ log_q.T - log_p @ q.T) / 2).clamp(min=0)


def anchor_positions(size: Size, per_side: int) -> Tensor:
    """Flat indices of a regular grid of at most `per_side` x `per_side` positions."""
    counts = (min(per_side, side) for side in size)
    rows, columns = (
        (torch.arange(n) * 2 + 1) * side // (2 * n) for n, side in zip(counts, size, strict=True)
    )
    return (rows[:, None] * size[1] + columns).flatten()


def merge(attention: Tensor, anchors: Tensor, tau: float, rounds: int) -> Tensor:
    """Proposals [N, P], each a distribution: section 3.3, iterative attention merging.

    attention: [P, P]; anchors: flat indices. The first round averages, per anchor, all positions
    nearer than tau; further rounds greedily merge proposals nearer than tau.
    """
    near = (symmetric_kl(attention[anchors], attention) < tau).float()
    # An anchor is at distance zero from itself, up to rounding.
    near[torch.arange(len(anchors)), anchors] = 1
    proposals = near @ attention / near.sum(1, keepdim=True)
    for _ in range(rounds - 1):
        near = symmetric_kl(proposals, proposals) < tau
        free = torch.ones(len(proposals), dtype=torch.bool, device=proposals.device)
        merged = []
        for i in range(len(proposals)):
            if free[i]:
                group = near[i] & free
                group[i] = True
                merged.append(proposals[group].mean(0))
                free &= ~group
        if len(merged) == len(proposals):
            break
        proposals = torch.stack(merged)
    return proposals


def kmeans(attention: Tensor, proposals: Tensor, rounds: int) -> Tensor:
    """Lloyd's algorithm on rows [P, P] by symmetric KL, seeded with proposals [N, P]; empty ones vanish."""
    for _ in range(rounds):
        nearest = symmetric_kl(proposals, attention).argmin(0)
        members = F.one_hot(nearest, len(proposals)).T.to(attention)
        members = members[members.sum(1) > 0]
        proposals = members @ attention / members.sum(1, keepdim=True)
    return proposals


def argmax_map(maps: Tensor, pixels: Size) -> Tensor:
    """Which of N maps [N, h, w] is largest at every pixel: [H, W] indices, without N pictures at once."""
    best, index = None, None
    for start in range(0, len(maps), 32):
        value, at = upsample(maps[start : start + 32], pixels).max(0)
        if best is None or index is None:
            best, index = value, at
        else:
            index = torch.where(value > best, at + start, index)
            best = torch.maximum(best, value)
    assert index is not None
    return index


def regions(attention: Tensor, size: Size, pixels: Size, config: SegmentationConfig) -> Tensor:
    """Region index [H, W] per pixel from aggregated self-attention [P, P] at `size`."""
    anchors = anchor_positions(size, config.anchors).to(attention.device)
    proposals = merge(attention, anchors, config.tau, config.rounds)
    proposals = kmeans(attention, proposals, config.kmeans)
    return argmax_map(proposals.unflatten(1, size), pixels)
