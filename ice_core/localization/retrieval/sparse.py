"""Sparse nonnegative decomposition of embeddings over a dictionary (SpLiCE, arXiv 2402.10376, eq. 3).

    min_{w >= 0}  |C^T w - z|^2 + 2 lambda |w|_1

Few of the thousands of words ever get a weight, so the problem is solved on a working set by FISTA
(Beck and Teboulle 2009) and grown by the words that violate the optimality conditions on the whole
dictionary, until the duality gap over all words closes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ice_core.errors import IceError

_GROWTH = 64
_CHECK_EVERY = 10


@torch.no_grad()
def sparse_weights(
    image: Tensor,
    dictionary: Tensor,
    penalty: float,
    iterations: int = 2000,
    tolerance: float = 1e-6,
) -> Tensor:
    """Weights w >= 0 [B, V] that explain B embeddings by V words.

    image: [B, D]; dictionary: [V, D], on any device; penalty: lambda of the objective above; iterations:
    at most this many per working set; tolerance: duality gap at which to stop, relative to |z|^2. The
    result has the dtype and device of `image`. Raises IceError unless the penalty is above 0.
    """
    if not penalty > 0:
        raise IceError(f"the sparsity penalty is {penalty}; it must be above 0 (0.2 is usual)")
    # Double precision is only affordable, and on some accelerators only to be had, for the small problem.
    rows = [_decompose(z, dictionary, penalty, iterations, tolerance) for z in image.double().cpu()]
    return torch.stack(rows).to(image)


def _decompose(z: Tensor, dictionary: Tensor, penalty: float, iterations: int, tolerance: float) -> Tensor:
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
        start = torch.cat([w, w.new_zeros(len(new))])
        w = _fista(z, words, start, penalty, iterations, tolerance / 10)


def _fista(z: Tensor, words: Tensor, w: Tensor, penalty: float, iterations: int, tolerance: float) -> Tensor:
    """FISTA from w [S] over words [S, D], restarted when the momentum points uphill (O'Donoghue and
    Candes 2015, gradient scheme)."""
    many = len(words) > len(z)
    gram, target = words @ words.T, words @ z
    step = 1 / torch.linalg.eigvalsh(words.T @ words if many else gram)[-1]
    y, t = w, 1.0
    for i in range(iterations):
        new = (y - step * (gram @ y - target + penalty)).clamp_min(0)
        if (y - new) @ (new - w) > 0:
            t = 1.0
        t_next = (1 + (1 + 4 * t**2) ** 0.5) / 2
        w, y, t = new, new + (t - 1) / t_next * (new - w), t_next
        if i % _CHECK_EVERY == 0:
            gap = _gap(z, z - w @ words, target - gram @ w, w, penalty)
            if gap <= tolerance * z.square().sum():
                break
    return w


def _gap(z: Tensor, residual: Tensor, correlation: Tensor, w: Tensor, penalty: float) -> Tensor:
    """Duality gap of half the objective.

    The dual point is the residual, shrunk until no word's correlation with it exceeds the penalty.
    """
    shrink = penalty / correlation.amax().clamp_min(penalty)
    primal = residual.square().sum() / 2 + penalty * w.sum()
    return primal - (z.square().sum() - (z - shrink * residual).square().sum()) / 2
