"""Stable Diffusion 1.x in ComfyUI: a U-Net that is told one CLIP's hidden states and nothing else."""

from __future__ import annotations

from typing import Any

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from .family import Family, Variant
from .text_encoders import ClipText
from .unet import UNet


def _recognises(model: Any) -> bool:
    inner = model.model
    return isinstance(getattr(inner, "diffusion_model", None), UNetModel) and not inner.adm_channels


def _text(clip: Any) -> ClipText:
    return ClipText(clip, "l")


_VARIANT = Variant("stable-diffusion-v1", 512, 185_000)

FAMILY = Family(
    variants={"epsilon": _VARIANT, "v_prediction": _VARIANT},
    title="Stable Diffusion 1 model",
    tokens=frozenset({"l"}),
    recognises=_recognises,
    denoiser=UNet,
    text=_text,
)
