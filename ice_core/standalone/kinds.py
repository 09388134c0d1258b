"""What a file of weights is when it is none of the families that can be loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ice_core.standalone.ldm import UNET_PREFIX

Shapes = Mapping[str, Sequence[int]]
"""Sizes of a file's weights by name."""

SUPPORTED = (
    "supported are Stable Diffusion 1.x, 2.x and XL text-to-image checkpoints in one .safetensors file, with "
    "U-Net, text encoders and VAE"
)
_FOREIGN = (
    (r"lora_(up|down|A|B)\b|\.hada_|\.lokr_", "a LoRA"),
    (r"^(emb_params|string_to_param|string_to_token|clip_[lgh]|<.+>)$", "a textual-inversion embedding"),
    (r"^control_model\.|^controlnet_", "a ControlNet"),
    (r"(^|\.)double_blocks\.\d", "a Flux model"),
    (r"(^|\.)joint_blocks\.\d", "a Stable Diffusion 3 model"),
    (r"(^|\.)noise_refiner\.\d", "a Z-Image or Lumina 2 model"),
    (r"(^|\.)transformer_blocks\.\d+\.img_mlp\.", "a Qwen-Image model"),
    (r"(^|\.)blocks\.\d+\.cross_attn\.", "a Wan, Cosmos or other video model"),
    (r"(^|\.)(clip_txt_mapper|clip_mapper)\.", "a Stable Cascade model"),
    (r"\.time_stack\.\d", "a video model of Stable Diffusion's kind"),
    (r"^edm_mean$", "a Playground v2.5 checkpoint"),
    (r"^edm_vpred\.", "a CosXL checkpoint"),
    (r"^(unet\.)?(down_blocks|up_blocks)\.\d", "a U-Net in diffusers' layout"),
)
_CONTEXT = UNET_PREFIX + "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
_LABEL = UNET_PREFIX + "label_emb.0.0.weight"


def foreign(shapes: Shapes) -> str | None:
    """The name of a known other kind of file and what gives it away, None when there is none."""
    for pattern, what in _FOREIGN:
        for key in shapes:
            if re.search(pattern, key):
                return f"{what} (it has {key})"
    return _foreign_u_net(shapes)


def _foreign_u_net(shapes: Shapes) -> str | None:
    """What is told from a supported family by the vectors that a U-Net takes beside text."""
    if _LABEL not in shapes or any(key.startswith("conditioner.embedders.1.") for key in shapes):
        return None
    context = next(iter(shapes.get(_CONTEXT, ())[1:]), 0)
    names = {1280: "the refiner of Stable Diffusion XL", 1024: "a Stable Diffusion unCLIP checkpoint"}
    return f"{names[context]} (its U-Net takes text {context} wide)" if context in names else None
