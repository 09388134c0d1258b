"""Stable Diffusion XL in ComfyUI: a U-Net that is told two CLIPs' hidden states, a pooled text and sizes."""

from __future__ import annotations

from typing import Any

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_base import SDXL
from torch import Tensor

from ice_core.model.backbone import TextFeatures

from .family import Family, Variant
from .text_encoders import ClipText
from .unet import UNet

_PIXELS = 8
"""Per latent cell and side, as the host's sampler counts when it tells a model the size of the picture."""


class SizedUNet(UNet):
    """A UNet that is also told a pooled text and the picture's size, as the host encodes them."""

    def told(self, noisy: Tensor, text: TextFeatures) -> dict[str, Tensor]:
        height, width = (side * _PIXELS for side in noisy.shape[-2:])
        encoded = self._inner.encode_adm(**text.extra, height=height, width=width, device=self.device)
        return {"y": encoded.to(self.device)}


def _recognises(model: Any) -> bool:
    inner = model.model
    return isinstance(inner, SDXL) and isinstance(inner.diffusion_model, UNetModel)


def _text(clip: Any) -> ClipText:
    return ClipText(clip, "l", "g", projected=True, told=True)


_BASE = Variant("stable-diffusion-xl-v1-base", 1024, 330_000)

FAMILY = Family(
    variants={"epsilon": _BASE, "v_prediction": _BASE},
    title="Stable Diffusion XL model",
    tokens=frozenset({"l", "g"}),
    recognises=_recognises,
    denoiser=SizedUNet,
    text=_text,
)
