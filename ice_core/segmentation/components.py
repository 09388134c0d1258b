"""A mask taken apart into object instances."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def components(mask: Tensor, min_area: float = 0.025, max_hole: float = 0.0025) -> list[Tensor]:
    """Connected parts of a mask [H, W] bool that cover more than `min_area` of the picture, largest first.

    Holes of at most `max_hole` of the picture are filled: larger ones, as that of a ring, are real.
    """
    from scipy import ndimage

    filled = mask.cpu().numpy().copy()
    holes, count = ndimage.label(~filled)
    sizes = np.bincount(holes.ravel(), minlength=count + 1)
    edge = np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])
    small = sizes <= max_hole * filled.size
    small[0] = False
    small[edge] = False
    filled |= small[holes]
    parts, count = ndimage.label(filled, _EIGHT_NEIGHBOURS)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    # Of equal areas, the one met first from the top: labels are given in reading order.
    order = sorted(range(1, count + 1), key=lambda part: (-sizes[part], part))
    return [torch.from_numpy(parts == part) for part in order if sizes[part] > min_area * filled.size]
