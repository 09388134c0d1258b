"""Maps that follow the edges of a picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def guided_filter(maps: Tensor, guide: Tensor, radius: int, eps: float = 1e-3) -> Tensor:
    """Maps [N, H, W] that follow the edges of a picture `guide` [3, H, W] in 0..1.

    Each map is locally (windows of 2 * radius + 1 pixels) a linear function of the colours; eps is the
    colour variance below which a window counts as flat. He et al., "Guided Image Filtering", PAMI 2013,
    section 3.5.
    """

    def mean(x: Tensor) -> Tensor:
        # One side after the other: the same mean for 2 * side instead of side^2 additions.
        side = 2 * radius + 1
        rows = F.avg_pool2d(x[None], (side, 1), 1, (radius, 0), count_include_pad=False)
        return F.avg_pool2d(rows, (1, side), 1, (0, radius), count_include_pad=False)[0]

    n, pixels = len(maps), guide.shape[1:]
    colors, level = mean(guide), mean(maps)
    products = (guide[:, None] * guide[None]).flatten(0, 1)
    variance = mean(products).unflatten(0, (3, 3)) - colors[:, None] * colors[None]
    cross = mean((guide[:, None] * maps[None]).flatten(0, 1)).unflatten(0, (3, n))
    covariance = cross - colors[:, None] * level[None]
    rows = variance + eps * torch.eye(3, device=guide.device)[..., None, None]
    # A symmetric 3 x 3 inverse by cross products: a batched solver takes seconds for a picture.
    first, second, third = rows
    adjugate = torch.stack(
        [torch.linalg.cross(a, b, dim=0) for a, b in ((second, third), (third, first), (first, second))], 1
    )
    inverse = adjugate / (first * adjugate[:, 0]).sum(0)
    slope = (inverse[:, :, None] * covariance[None]).sum(1)
    offset = level - (slope * colors[:, None]).sum(0)
    slope = mean(slope.flatten(0, 1)).unflatten(0, (3, n))
    return ((slope * guide[:, None]).sum(0) + mean(offset)).reshape(n, *pixels)
