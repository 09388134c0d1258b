"""Stable Diffusion 1.x in ComfyUI: a U-Net that is told one CLIP's hidden states and nothing else."""

from __future__ import annotations

from typing import Any

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from .family import Family
from .text_encoders import ClipText
from .unet import UNet


def _recognises(model: Any) -> bool:
    inner = model.model
    return isinstance(getattr(inner, "diffusion_model", None), UNetModel) and not inner.adm_channels


def _text(clip: Any) -> ClipText:
    return ClipText(clip, "l")


FAMILY = Family(
    architecture="stable-diffusion-v1",
    title="Stable Diffusion 1 model",
    native_size=512,
    tokens=frozenset({"l"}),
    recognises=_recognises,
    denoiser=UNet,
    text=_text,
)
