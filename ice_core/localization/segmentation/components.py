"""A mask taken apart into object instances."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_HOLE = 0.0025
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)
_DEPTH_STEPS = 64
"""A mask is shrunk by this share of its thickness at a time in search of a neck, at least by half a pixel."""


def without_holes(mask: Tensor, max_hole: float = MAX_HOLE) -> Tensor:
    """A mask [H, W] bool on the CPU whose holes of at most this share of the picture are filled."""
    from scipy import ndimage

    filled = mask.cpu().numpy().copy()
    holes, count = ndimage.label(~filled)
    sizes = np.bincount(holes.ravel(), minlength=count + 1)
    edge = np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])
    small = sizes <= max_hole * filled.size
    small[0] = False
    small[edge] = False
    filled |= small[holes]
    return torch.from_numpy(filled)


def components(
    mask: Tensor, min_area: float = 0.025, max_hole: float = MAX_HOLE, neck: float = 0.0
) -> list[Tensor]:
    """Connected parts of a mask [H, W] bool that cover more than `min_area` of the picture, largest first.

    Holes of at most `max_hole` of the picture are filled: larger ones, as that of a ring, are real.
    neck: parts that touch are taken apart where the mask is at most this narrow, relative to the smaller
    part's thickness (ours; 0 leaves them together). Only a cut that leaves two parts of at least
    `min_area` is made.
    """
    from scipy import ndimage

    filled = without_holes(mask, max_hole).numpy()
    labels, count = ndimage.label(filled, _EIGHT_NEIGHBOURS)
    least = min_area * filled.size
    parts = []
    for number in range(1, count + 1):
        part = labels == number
        # A ring is as thick as the disc it surrounds: a hole is no neck.
        cut = _cut_at_necks(ndimage.binary_fill_holes(part), neck, least) if neck else [part]
        parts += [piece & part for piece in cut]
    areas = [int(part.sum()) for part in parts]
    # Of equal areas, the one met first from the top: labels are given in reading order.
    order = sorted(range(len(parts)), key=lambda i: (-areas[i], i))
    return [torch.from_numpy(parts[i]) for i in order if areas[i] > least]


def _cut_at_necks(solid: NDArray[np.bool_], neck: float, least: float) -> list[NDArray[np.bool_]]:
    """A connected shape [H, W] as its pieces; at least two of more than `least` pixels, or the whole."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(solid, 1))[1:-1, 1:-1]
    step = max(0.5, depth.max() / _DEPTH_STEPS)
    for narrow in np.arange(step, neck * depth.max(), step):
        cores, count = ndimage.label(depth > narrow, _EIGHT_NEIGHBOURS)
        if count < 2:
            continue
        thickness: Any = ndimage.maximum(depth, cores, np.arange(1, count + 1))
        thick = [number for number in range(1, count + 1) if narrow <= neck * thickness[number - 1]]
        if len(thick) < 2:
            continue
        # All cores lost the same margin: a pixel belongs to the nearest one.
        kept = np.where(np.isin(cores, thick), cores, 0)
        nearest: Any = ndimage.distance_transform_edt(kept == 0, return_distances=False, return_indices=True)
        owner = kept[tuple(nearest)]
        pieces = [(owner == number) & solid for number in thick]
        if sum(piece.sum() > least for piece in pieces) >= 2:
            return [part for piece in pieces for part in _cut_at_necks(piece, neck, least)]
    return [solid]
