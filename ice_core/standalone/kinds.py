"""What a file of weights is when it is none of the families that can be loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ice_core.standalone.ldm import UNET_PREFIX

Shapes = Mapping[str, Sequence[int]]
"""Sizes of a file's weights by name."""

SUPPORTED = (
    "supported are Stable Diffusion 1.x text-to-image checkpoints in one .safetensors file, with U-Net, "
    "text encoder and VAE"
)
_FOREIGN = (
    (r"lora_(up|down|A|B)\b|\.hada_|\.lokr_", "a LoRA"),
    (r"^(emb_params|string_to_param|string_to_token|clip_[lgh]|<.+>)$", "a textual-inversion embedding"),
    (r"^control_model\.|^controlnet_", "a ControlNet"),
    (r"^conditioner\.embedders\.|diffusion_model\.label_emb\.", "a Stable Diffusion XL checkpoint"),
    (r"(^|\.)double_blocks\.\d", "a Flux model"),
    (r"(^|\.)joint_blocks\.\d", "a Stable Diffusion 3 model"),
    (r"^cond_stage_model\.model\.", "a Stable Diffusion 2.x checkpoint"),
    (r"^(unet\.)?(down_blocks|up_blocks)\.\d", "a U-Net in diffusers' layout"),
)


def foreign(shapes: Shapes) -> str | None:
    """The name of a known other kind of file and what gives it away, None when there is none."""
    context = shapes.get(UNET_PREFIX + "middle_block.1.transformer_blocks.0.attn2.to_k.weight", ())
    if tuple(context[1:]) == (1024,):
        return "a Stable Diffusion 2.x checkpoint (text context 1024 wide)"
    for pattern, what in _FOREIGN:
        for key in shapes:
            if re.search(pattern, key):
                return f"{what} (it has {key})"
    return None
