"""The attention segmentor: which pixels of a picture a word means, by the diffusion model itself."""

from ice_core.localization.segmentation.components import components
from ice_core.localization.segmentation.config import SegmentationConfig
from ice_core.localization.segmentation.segmentor import Segmentation, check_picture, contrast, segment

__all__ = ["Segmentation", "SegmentationConfig", "check_picture", "components", "contrast", "segment"]
