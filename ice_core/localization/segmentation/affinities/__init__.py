"""How much two places of a picture hang together, by the self-attention of one noised pass: one interface,
a way per file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from ice_core.localization.segmentation.affinities.average import all_alike
from ice_core.localization.segmentation.affinities.chains import two_bounces
from ice_core.localization.segmentation.affinities.clusterability import by_clusterability
from ice_core.localization.segmentation.affinities.walks import by_walks
from ice_core.localization.segmentation.config import AffinityName

Affinity = Callable[[Iterable[Tensor]], Tensor]
"""Row-stochastic attention [P, P] of one head of one layer after the other -> symmetric [P, P] >= 0."""

AFFINITIES: Mapping[AffinityName, Affinity] = {
    "clusterability": by_clusterability,
    "mean": all_alike,
    "chains": two_bounces,
    "walks": by_walks,
}

__all__ = ["AFFINITIES", "Affinity"]
