"""Stable Diffusion 2.x in ComfyUI: a U-Net that is told the hidden states of OpenCLIP's ViT-H/14."""

from __future__ import annotations

from typing import Any

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.supported_models import SD20

from .family import Family, Variant
from .text_encoders import ClipText
from .unet import UNet


def _recognises(model: Any) -> bool:
    inner = model.model
    is_unet = isinstance(getattr(inner, "diffusion_model", None), UNetModel)
    return is_unet and isinstance(inner.model_config, SD20) and not inner.adm_channels


def _text(clip: Any) -> ClipText:
    return ClipText(clip, "h", projected=True)


FAMILY = Family(
    variants={
        "epsilon": Variant("stable-diffusion-v2-512", 512, 175_000),
        "v_prediction": Variant("stable-diffusion-v2-768-v", 768, 175_000),
    },
    title="Stable Diffusion 2 model",
    tokens=frozenset({"h"}),
    recognises=_recognises,
    denoiser=UNet,
    text=_text,
)
