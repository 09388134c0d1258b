"""How well found masks lie on true ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ice_core.errors import IceError


@dataclass(frozen=True)
class MaskScores:
    """Of one picture. iou, recall: per true object, 0 where none was found for it; precision: per found
    mask, 0 where it belongs to no object; all in 0..1, counted in pixels."""

    iou: tuple[float, ...]
    recall: tuple[float, ...]
    precision: tuple[float, ...]


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of masks [N, H, W] and [M, H, W] bool: [N, M]; 0 for two empty masks."""
    a, b = first.flatten(1).float(), second.flatten(1).float()
    both = a @ b.T
    union = a.sum(1)[:, None] + b.sum(1) - both
    return both / union.clamp(min=1)


def mask_scores(truth: Tensor, found: Tensor) -> MaskScores:
    """Match found masks [M, H, W] to true ones [N, H, W], both bool, for the largest sum of IoU.

    The matching is the Hungarian method's, which leaves no choice of a threshold. Raises IceError for masks
    of different sizes, and where there is no true mask.
    """
    if not len(truth):
        raise IceError("there is no true mask to compare with; leave the masks of this picture out")
    if truth.shape[1:] != found.shape[1:]:
        sizes = f"{tuple(truth.shape[1:])} and {tuple(found.shape[1:])}"
        raise IceError(f"masks of {sizes} pixels cannot be compared; resize the true ones")
    iou, recall = torch.zeros(len(truth)), torch.zeros(len(truth))
    precision = torch.zeros(len(found))
    overlaps = pairwise_iou(truth, found)
    for i, j in zip(*linear_sum_assignment(overlaps.numpy(), maximize=True), strict=True):
        both = (truth[i] & found[j]).sum()
        iou[i] = overlaps[i, j]
        recall[i] = both / truth[i].sum().clamp(min=1)
        precision[j] = both / found[j].sum().clamp(min=1)
    return MaskScores(tuple(iou.tolist()), tuple(recall.tolist()), tuple(precision.tolist()))


def stacked(masks: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Masks [H, W] as one tensor [N, *size] bool, also where there are none."""
    return torch.stack(list(masks)) if masks else torch.zeros(0, *size, dtype=torch.bool)
