"""Shapes of the bundled models: of the make of Stable Diffusion 1, small enough for a laptop CPU."""

from __future__ import annotations

from typing import Any

LATENT_CHANNELS = 8
"""Four leave fine patterns on small solids smeared, however long one trains: 30.0 dB after 5 100 steps."""

VAE_CONFIG: dict[str, Any] = {"latent_channels": LATENT_CHANNELS}
"""diffusers' `AutoencoderTiny`: the layout of TAESD, which hosts load as a VAE of its own kind.

The usual KL autoencoder normalises 32 groups of channels; at a width that a CPU can train, a group is
one channel and absolute colours cannot pass (measured: grey pictures after 10 000 crops).
"""

UNET_CONFIG: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
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

METADATA = {
    "ice.unet_heads": "4",
    "ice.text_heads": "4",
    "ice.native_size": "128",
    "ice.prediction": "v_prediction",
}
"""What a checkpoint's weights alone cannot tell; absent in Stable Diffusion 1 files (8 and width / 64)."""
