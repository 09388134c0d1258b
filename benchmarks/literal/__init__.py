"""The paper's Stage Two written down as it reads, to be compared with: `train_literal`.

Cendra and Han, "ICE: Intrinsic Concept Extraction from a Single Image via Diffusion Models", CVPR 2025,
arXiv 2503.19902. Nothing is kept that a step could make anew, and nothing is left out that it could keep.
"""

from .loop import LiteralFinished, train_literal

__all__ = ["LiteralFinished", "train_literal"]
