"""The Backbone without a host: Stable Diffusion 1, 2 and XL checkpoints on diffusers and transformers."""

from __future__ import annotations

from ice_core.standalone.backbone import StandaloneBackbone
from ice_core.standalone.checkpoint import load_checkpoint

__all__ = ["StandaloneBackbone", "load_checkpoint"]
