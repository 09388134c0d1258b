"""Places are bound that walks along attention take to the same places.

Ivanova et al., "Unsupervised Segmentation by Diffusing, Walking and Cutting", WACV 2026, arXiv 2412.04678:
the heads' mean is the transition matrix of a random walk, its power says where walks of several steps end,
and how alike those ends are is what normalized cuts are made on. Their automatic threshold is not taken over:
the largest cost of a cut is a setting here.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor

from ice_core.localization.segmentation.affinities.average import average, symmetric

_SQUARINGS = 1
"""Walks of two steps."""


def by_walks(heads: Iterable[Tensor]) -> Tensor:
    """Symmetric affinity [P, P] >= 0: cosines between the rows of the walk's power."""
    ends = average(heads, lambda head: 1.0)
    for _ in range(_SQUARINGS):
        ends = ends @ ends
    ends = F.normalize(ends, dim=1)
    return symmetric(ends @ ends.T)
