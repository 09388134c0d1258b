"""Maps of several resolutions as maps of one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.model.attention import Size


def largest(sizes: Mapping[Size, Tensor]) -> Size:
    """The size (height, width) of most positions."""
    return max(sizes, key=lambda size: size[0] * size[1])


def upsample(maps: Tensor, size: Size) -> Tensor:
    """[N, h, w] -> [N, *size], bilinear."""
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def aggregate(self_attention: Mapping[Size, Tensor]) -> Tensor:
    """One distribution per position of the largest size: [P, P], every row sums to 1.

    self_attention: {(h, w): [h*w, h*w]}. Keys are upsampled, queries repeated, sizes weighted in proportion
    to their side (DiffSeg, arXiv 2308.12469, section 3.2).
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
