"""Shapes of the bundled models: of the make of Stable Diffusion 1, small enough for a laptop CPU."""

from __future__ import annotations

from typing import Any

VAE_CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (32, 32, 64, 96),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 128,
    "scaling_factor": 0.18215,
}

UNET_CONFIG: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (64, 192),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "cross_attention_dim": 128,
    # diffusers calls the number of heads "attention_head_dim" for models of this generation.
    "attention_head_dim": 4,
    "norm_num_groups": 32,
}

CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 128, "layers": [1, 1, 2, 1], "width": 20, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 4},
    "quick_gelu": True,
}

METADATA = {"ice.unet_heads": "4", "ice.text_heads": "4"}
"""What a checkpoint's weights alone cannot tell; absent in Stable Diffusion 1 files (8 and width / 64)."""
