"""The weights of mixtures by least squares: what the denoiser leaves unexplained, told by its words (ours).

A denoiser's output changes nearly linearly while a token goes a short way from its mixture towards one of
its words. So the weights that explain a picture best need no descent: the changes towards each word are
measured by forward differences, and the error is decomposed into them, over as many noisy copies as there
are (Gauss-Newton with Levenberg's damping; Nocedal and Wright, "Numerical Optimization", section 10.3). A
weight may come out negative: away from that word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

REACH = 0.3
"""How far towards a word a change is measured, as a share of the way."""
_LARGEST_MOVE = 0.5
"""Of all weights together in one solution: farther off, changes are not linear."""


@dataclass(frozen=True)
class NormalEquations:
    """Sums over noisy copies, float64 on the CPU. curvature: of products of changes [n, n]; slope: of changes
    and error [n]."""

    curvature: Tensor
    slope: Tensor

    @classmethod
    def empty(cls, unknowns: int) -> NormalEquations:
        """Of no copies."""
        return cls(
            torch.zeros(unknowns, unknowns, dtype=torch.float64), torch.zeros(unknowns, dtype=torch.float64)
        )

    def __add__(self, other: NormalEquations) -> NormalEquations:
        return NormalEquations(self.curvature + other.curvature, self.slope + other.slope)

    @classmethod
    def of(cls, changes: Sequence[Tensor], error: Tensor, weight: Tensor) -> NormalEquations:
        """Of B copies. changes: n of [B, C, h, w]; error: [B, C, h, w]; weight: [B, 1, h, w]."""
        root = weight.sqrt()
        # On the CPU before they are doubled: Apple's accelerator has no float64.
        table = torch.stack([(root * change).flatten().cpu() for change in changes]).double()
        wanted = (root * error).flatten().cpu().double()
        return cls(table @ table.T, table @ wanted)

    @property
    def finite(self) -> bool:
        return bool(self.curvature.isfinite().all() and self.slope.isfinite().all())

    def solution(self, damping: float) -> Tensor:
        """How much of each change the error holds [n]; damping: as a share of the mean curvature.

        Zero where nothing changes the output.
        """
        mean = self.curvature.diagonal().mean()
        if not mean > 0:
            return torch.zeros_like(self.slope)
        damped = self.curvature + max(damping, 1e-9) * mean * torch.eye(len(self.slope), dtype=torch.float64)
        found: Tensor = torch.linalg.solve(damped, self.slope)
        return found


def moved(weights: Tensor, towards: Tensor) -> Tensor:
    """Weights [k] of sum 1 after going, for each word, that share [k] of the way to it; their sum stays 1."""
    length = float(towards.abs().sum())
    share = towards.to(weights.dtype).to(weights.device) * min(1.0, _LARGEST_MOVE / length if length else 1.0)
    return weights + share - weights * share.sum()
