"""Heads that tell things apart count most (ours).

Most heads look at what is near or alike; a few keep to the thing they are on. Which ones do can be read off
a head alone: a random walk along its attention forgets where it started unless the head has parts that
attention hardly leaves (slow modes: eigenvalues near 1). Weighting heads and layers of one noised pass
without labels: GoCA, arXiv 2603.06178; walks along attention: arXiv 2412.04678. The weight is ours.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from ice_core.localization.segmentation.affinities.average import average, symmetric

_SQUARINGS = 2
"""A^4 after two; the trace of its square sums the eighth powers of the eigenvalues."""
_LEAST = 1e-6


def clusterability(attention: Tensor) -> float:
    """How much a walk along row-stochastic attention [P, P] remembers: the sum of its eigenvalues' eighth
    powers without the first, tr(A^8) - 1. 0 for attention that looks everywhere alike, one less than the
    number of parts for attention that stays within parts."""
    power = attention
    for _ in range(_SQUARINGS):
        power = power @ power
    return max(float((power * power.T).sum()) - 1, 0.0)


def by_clusterability(heads: Iterable[Tensor]) -> Tensor:
    """Symmetric affinity [P, P] >= 0: the mean of heads [P, P] by their clusterability."""
    return symmetric(average(heads, lambda head: clusterability(head) + _LEAST))
