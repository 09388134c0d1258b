"""The terms of Stage Two's loss, as pure functions of tensors.

Source of all but `composition_loss`: Cendra and Han, "ICE: Intrinsic Concept Extraction from a Single
Image via Diffusion Models", CVPR 2025, arXiv 2503.19902, section on structured concept learning.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ice_core.training.transport import potentials


def masked_denoising_loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error inside a mask, per element: every covered cell and channel counts the same.

    prediction, target: [B, C, h, w]; mask: [B, 1, h, w], the share of each cell that the object covers,
    in 0..1. Returns a scalar; exactly 0 for an empty mask (callers refuse those).
    """
    weights = mask.expand_as(prediction)
    total = weights.sum()
    error = (weights * (prediction - target) ** 2).sum()
    return error / torch.where(total > 0, total, 1)


def alignment_loss(
    attention: Tensor, mask: Tensor, cost: Tensor, epsilon: float = 1e-3, iterations: int = 16
) -> Tensor:
    """Entropic transport cost between attention maps and masks, mean over the batch.

    attention: [B, Q] > 0; mask: [B, Q] >= 0, none all zero; cost: [Q, Q] from `cell_distances`. Both are
    normalised to sum 1 here. Returns a scalar.

    The gradient is the envelope theorem's. With potentials (f, g) the dual objective is
    D = <f, a> + <g, b> - epsilon <a x b, exp((f + g - cost) / epsilon) - 1>; at its maximum dD/df and
    dD/dg vanish, and after an update of f the last term's derivative by a is 0 in every row, so dD/da = f
    and D = <f, a> + <g, b>. Nothing has to be differentiated through the iterations, whose memory would
    be iterations * Q * R. Stopped early, D is still a lower bound, affine in a: f is then an approximate
    subgradient. By the attention before it is normalised, x = a |x|, it is (f - <f, a>) / |x|.
    """
    values, slopes = [], []
    with torch.no_grad():
        for x, mass in zip(attention, mask, strict=True):
            inside = mass > 0
            a, b = x / x.sum(), mass[inside].to(x)
            b = b / b.sum()
            f, g = potentials(a, b, cost[inside].to(x), epsilon, iterations)
            along = f @ a
            values.append(along + g @ b)
            slopes.append((f - along) / x.sum())
    # Each value is the loss and each slope its gradient: together the tangent, which is 0 here.
    tangent = (torch.stack(slopes) * (attention - attention.detach())).sum(-1)
    return (torch.stack(values) + tangent).mean()


def _mean_of_active(hinge: Tensor) -> Tensor:
    """Sum of the positive entries over their count; exactly 0, with gradient 0, when there are none."""
    active = hinge > 0
    return torch.where(active, hinge, 0).sum() / active.sum().clamp(min=1)


def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Hinge on squared distances, |anchor - positive|^2 - |anchor - negative|^2 + margin, mean of active.

    anchor, positive, negative: [N, P] or broadcastable to it. Returns a scalar.
    """
    near, far = ((anchor - other) ** 2 for other in (positive, negative))
    return _mean_of_active(near.sum(-1) - far.sum(-1) + margin)


def elementwise_triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: Tensor) -> Tensor:
    """The same hinge for each feature by itself, with a margin vector; mean of active elements.

    All [N, P]. Returns a scalar; 0 for N = 0.
    """
    return _mean_of_active((anchor - positive) ** 2 - (anchor - negative) ** 2 + margin)


def intrinsic_triplet_loss(
    words: Tensor, intrinsics: Tensor, label: Tensor, object_: Tensor, scale: float
) -> Tensor:
    """Phase 2: each intrinsic token near its axis word and far from the others', none near the label.

    words: [K, P] features of the axis words; intrinsics: [K, P] features of a_1..a_K; label, object_: [P].
    Triplets (anchor, positive, negative): (word k, a_k, a_j) for j != k, and (label, o, a_j) for every j;
    the margin is `scale` times the element-wise squared difference of the two anchors, so that tokens
    that sit on their anchors satisfy it when scale < 1. With one axis only the second kind remains.
    """
    k, j = (~torch.eye(len(words), dtype=torch.bool, device=words.device)).nonzero(as_tuple=True)
    every = label.expand_as(words)
    return elementwise_triplet_loss(
        torch.cat([words[k], every]),
        torch.cat([intrinsics[k], object_.expand_as(words)]),
        torch.cat([intrinsics[j], intrinsics]),
        scale * torch.cat([words[k] - words[j], every - words]) ** 2,
    )


def composition_loss(parts: Tensor, whole: Tensor) -> Tensor:
    """Squared distance between T(o a_1..a_K) and phase 1's T(s o), both [P]; ours.

    The cheap form of composability in HyperExpress, arXiv 2603.11795.
    """
    return ((parts - whole) ** 2).sum()
