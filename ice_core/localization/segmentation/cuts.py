"""Groups of places that hang together.

Shi and Malik, "Normalized Cuts and Image Segmentation", PAMI 2000: the recursive two-way cut.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LEAST = 1e-12


def normalized_cuts(affinity: Tensor, most: float, least: int) -> list[Tensor]:
    """Take places apart while a cut costs little: index tensors, disjoint, that hold all places.

    affinity: [P, P] symmetric, >= 0; most: the largest normalized cut (0 to 2) that is made; least: places
    that either side of a cut keeps.
    """
    weights = affinity.detach().cpu().double().numpy()
    groups, todo = [], [np.arange(len(weights))]
    while todo:
        places = todo.pop()
        sides = _cut(weights[np.ix_(places, places)], most, least)
        if sides is None:
            groups.append(torch.from_numpy(places))
        else:
            todo += [places[sides], places[~sides]]
    return sorted(groups, key=lambda group: int(group[0]))


def _cut(weights: NDArray[np.float64], most: float, least: int) -> NDArray[np.bool_] | None:
    """The best two-way cut of [n, n] along the second eigenvector (section 3), or None: too dear."""
    from scipy.linalg import eigh

    count = len(weights)
    if count < 2 * least:
        return None
    degree = np.maximum(weights.sum(1), _LEAST)
    scale = 1 / np.sqrt(degree)
    _, vectors = eigh(scale[:, None] * weights * scale, subset_by_index=[count - 2, count - 1])
    order = np.argsort(scale * vectors[:, 0], kind="stable")
    # Every threshold at once: what is within the first k places, and all that they are bound to.
    within = np.diagonal(weights[np.ix_(order, order)].cumsum(0).cumsum(1))
    bound = degree[order].cumsum()
    cut, rest = bound - within, bound[-1] - bound
    cost = cut / bound + cut / np.maximum(rest, _LEAST)
    first, last = least - 1, count - least
    best = first + int(cost[first:last].argmin())
    if cost[best] > most:
        return None
    sides = np.zeros(count, dtype=bool)
    sides[order[: best + 1]] = True
    return sides
