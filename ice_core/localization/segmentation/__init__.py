"""The attention segmentor: which pixels of a picture a word means, and what the things of a picture are, by
the diffusion model itself."""

from ice_core.localization.segmentation.components import components
from ice_core.localization.segmentation.config import ObjectsConfig, SegmentationConfig
from ice_core.localization.segmentation.maps import encode_views
from ice_core.localization.segmentation.objects import Objects, find_objects
from ice_core.localization.segmentation.outlines import redrawn
from ice_core.localization.segmentation.segmentor import (
    Segmentation,
    check_picture,
    contrast,
    segment,
    segment_words,
)

__all__ = [
    "Objects",
    "ObjectsConfig",
    "Segmentation",
    "SegmentationConfig",
    "check_picture",
    "components",
    "contrast",
    "encode_views",
    "find_objects",
    "redrawn",
    "segment",
    "segment_words",
]
