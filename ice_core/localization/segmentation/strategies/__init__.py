"""How the attention of one pass becomes a place for each word: one interface, a way per file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from ice_core.localization.segmentation.config import Method, SegmentationConfig
from ice_core.localization.segmentation.maps import AttentionMaps
from ice_core.localization.segmentation.strategies.clusters import by_clusters
from ice_core.localization.segmentation.strategies.propagation import by_propagation
from ice_core.model.attention import Size

Strategy = Callable[[AttentionMaps, Size, SegmentationConfig], Iterator[tuple[Tensor, Tensor]]]
"""Maps of a pass, and the picture's pixels -> for each concept in turn what decides between it, things and
background at every pixel, and how much of the three's attention each has there: [3, H, W] both."""

STRATEGIES: Mapping[Method, Strategy] = {"clusters": by_clusters, "propagation": by_propagation}

__all__ = ["STRATEGIES", "Strategy"]
