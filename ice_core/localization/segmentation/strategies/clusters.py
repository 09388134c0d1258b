"""Regions of similar self-attention, each of which takes the word it attends to most: the paper's own.

Cendra and Han, "ICE", CVPR 2025, arXiv 2503.19902, section 3.1, by the clustering of DiffSeg: Tian et al.,
"Diffuse, Attend, and Segment: Unsupervised Zero-Shot Segmentation using Stable Diffusion", CVPR 2024, arXiv
2308.12469.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.localization.segmentation.config import SegmentationConfig
from ice_core.localization.segmentation.grids import aggregate, largest, upsample
from ice_core.localization.segmentation.labels import balanced, each_concept, region_means, vote
from ice_core.localization.segmentation.maps import AttentionMaps
from ice_core.model.attention import Size

_LEAST = 1e-10


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


def by_clusters(
    maps: AttentionMaps, pixels: Size, config: SegmentationConfig
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each concept: the word that won each region, as ones of [3, H, W], and the words' shares there."""
    size = largest(maps.words)
    region = regions(aggregate(maps.self_attention), size, pixels, config)
    for shares in each_concept(maps.words, size):
        words = upsample(balanced(shares, config.balance), pixels)
        share = words / words.sum(0, keepdim=True).clamp(min=_LEAST)
        won = F.one_hot(vote(region, words), len(words)).permute(2, 0, 1).float()
        yield won, region_means(region, share)[region].permute(2, 0, 1)
