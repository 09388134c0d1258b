"""Entropic optimal transport between two maps of one grid.

The problem: Cuturi, "Sinkhorn Distances", NeurIPS 2013; in the form and with the duals of Feydy et al.,
"Interpolating between Optimal Transport and MMD using Sinkhorn Divergences", AISTATS 2019, arXiv 1810.08278,
section 3.1. Newton's method on it: Brauer et al., "A Sinkhorn-Newton method for entropic optimal transport",
arXiv 1710.06635.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ice_core.model.attention import Size

_FALLING = 0.75
"""Share of the iterations in which the entropy falls; the rest is spent at the last one."""
_DAMPING = 1e-3
"""Added to the Hessian, relative to its diagonal: it is singular along g + constant, and nearly so where
the plan falls apart into pieces."""
_LONGEST = 5.0
"""Longest change of a potential in one iteration, in entropies: Newton's model holds no further."""
_LEAST = 1e-18
"""Smallest share of a plan: products of smaller ones would be denormal numbers, which processors take up to
a hundred times as long for."""


def cell_distances(size: Size) -> Tensor:
    """Euclidean distances [Q, Q] between the cell centres of a (height, width) map, Q = height * width.

    Unit: the longer side of the map, so that a square map is the unit square at any resolution.
    """
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij")
    centres = torch.stack([rows.flatten(), columns.flatten()], -1) / max(size)
    return (centres[:, None] - centres).norm(dim=-1)


def potentials(
    source: Tensor, target: Tensor, cost: Tensor, epsilon: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Dual potentials f [Q], g [R] of min over plans P of <P, cost> + epsilon KL(P | target x source).

    source: [Q] >= 0, target: [R] > 0, both of sum 1; cost, P: [R, Q]. With f the best one for a given g,
    the dual objective is concave in g; damped Newton steps climb it while the entropy falls from 1 to
    `epsilon` (ours: what costs time here is the number of operations, and 16 steps come closer than
    800 of Sinkhorn's). R is best the smaller of the two. f is updated last, so the plan's sums over
    the target are exact whatever the iterations. No gradients.

    The steps do not ask how far they are: a device would have to be waited for.
    """
    with torch.no_grad():
        log_target, target, root = target.log()[:, None], target[:, None], source.sqrt()
        falling = max(1, round(_FALLING * iterations))
        g = torch.zeros_like(log_target)
        for i in range(1, iterations + 1):
            e = epsilon ** min(1, i / falling) if epsilon < 1 else epsilon
            shares = torch.add(log_target, g - cost, alpha=1 / e).softmax(0)
            shares = shares.mul_(root).clamp_(min=_LEAST)
            sums = shares @ root[:, None]
            # Hessian and gradient with their signs turned: what is solved for stays the same.
            hessian = shares @ shares.T
            hessian.diagonal().add_(sums[:, 0], alpha=-1 - _DAMPING)
            step, _ = torch.linalg.solve_ex(hessian, sums - target)
            g.add_(step.clamp_(-_LONGEST, _LONGEST), alpha=e)
        f = -epsilon * torch.add(log_target, g - cost, alpha=1 / epsilon).logsumexp(0)
        return f, g[:, 0]
