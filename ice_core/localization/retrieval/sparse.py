"""Sparse nonnegative decomposition of embeddings over a dictionary (SpLiCE, arXiv 2402.10376, eq. 3).

    min_{w >= 0}  |C^T w - z|^2 + 2 lambda |w|_1

Few of the thousands of words ever get a weight, so the problem is solved on a working set, as nonnegative
least squares (Lawson and Hanson 1974, as SciPy has it), which grows by the words that violate the optimality
conditions on the whole dictionary, until the duality gap over all words closes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ice_core.errors import IceError

_GROWTH = 64
_ROUNDS = 30
_RIDGE = 1e-10
"""Keeps the products of words that say the same from being singular."""


@torch.no_grad()
def sparse_weights(
    image: Tensor,
    dictionary: Tensor,
    penalty: float,
    tolerance: float = 1e-6,
) -> Tensor:
    """Weights w >= 0 [B, V] that explain B embeddings by V words.

    image: [B, D]; dictionary: [V, D], on any device; penalty: lambda of the objective above; tolerance:
    duality gap at which to stop, relative to |z|^2. The result has the dtype and device of `image`.
    Raises IceError unless the penalty is above 0.
    """
    if not penalty > 0:
        raise IceError(f"the sparsity penalty is {penalty}; it must be above 0 (0.2 is usual)")
    # Double precision is only affordable, and on some accelerators only to be had, for the small problem.
    rows = [_decompose(z, dictionary, penalty, tolerance) for z in image.double().cpu()]
    return torch.stack(rows).to(image)


def _decompose(z: Tensor, dictionary: Tensor, penalty: float, tolerance: float) -> Tensor:
    """Weights [V] for one embedding z [D]."""
    chosen = torch.empty(0, dtype=torch.long)
    words, w = z.new_zeros(0, len(z)), z.new_zeros(0)
    while True:
        residual = z - w @ words
        correlation = (dictionary @ residual.to(dictionary)).double().cpu()
        excess = (correlation - penalty).index_fill(0, chosen, 0)
        violators = int((excess > 0).sum())
        if not violators or _gap(z, residual, correlation, w, penalty) <= tolerance * z.square().sum():
            return z.new_zeros(len(dictionary)).index_copy(0, chosen, w)
        new = excess.topk(min(violators, max(_GROWTH, len(chosen)))).indices
        chosen = torch.cat([chosen, new])
        words = torch.cat([words, dictionary[new.to(dictionary.device)].double().cpu()])
        w = _solved(z, words, penalty)


def _solved(z: Tensor, words: Tensor, penalty: float) -> Tensor:
    """Weights [S] >= 0 over words [S, D], as few as are solved exactly.

    With products G of the words and t = words z - lambda, half of the objective is w^T G w / 2 - t^T w and a
    constant: that of the least squares |R w - R^-T t|^2 / 2, where R^T R = G.
    """
    from scipy.linalg import cholesky, solve_triangular
    from scipy.optimize import nnls

    gram, target = (words @ words.T).numpy(), (words @ z).numpy() - penalty
    gram[np.diag_indices_from(gram)] += _RIDGE
    root = cholesky(gram)
    weights, _ = nnls(root, solve_triangular(root, target, trans="T"), maxiter=_ROUNDS * len(words))
    return torch.from_numpy(weights)


def _gap(z: Tensor, residual: Tensor, correlation: Tensor, w: Tensor, penalty: float) -> Tensor:
    """Duality gap of half the objective.

    The dual point is the residual, shrunk until no word's correlation with it exceeds the penalty.
    """
    shrink = penalty / correlation.amax().clamp_min(penalty)
    primal = residual.square().sum() / 2 + penalty * w.sum()
    return primal - (z.square().sum() - (z - shrink * residual).square().sum()) / 2
