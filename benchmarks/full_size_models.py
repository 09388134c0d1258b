"""Models of the published families' true shapes with random weights: nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ice_core.standalone.architecture import Architecture
from ice_core.standalone.backbone import StandaloneBackbone
from ice_core.standalone.clip_text import ClipText
from ice_core.standalone.joint_text import JointText
from ice_core.standalone.ldm import LATENT_SCALE, XL_LATENT_SCALE


@dataclass(frozen=True)
class Shape:
    """architecture: model-spec name; unet: what differs from Stable Diffusion 1's arguments; texts: width and
    layers of each encoder; side: of its pictures in pixels."""

    architecture: str
    unet: dict[str, Any]
    texts: dict[str, tuple[int, int]]
    side: int
    latent_scale: float = LATENT_SCALE


SHAPES = {
    "sd15": Shape(
        "stable-diffusion-v1",
        {"cross_attention_dim": 768, "attention_head_dim": 8},
        {"clip_l": (768, 12)},
        512,
    ),
    "sd21": Shape(
        "stable-diffusion-v2-768-v",
        {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
        {"clip_h": (1024, 24)},
        768,
    ),
    "sdxl": Shape(
        "stable-diffusion-xl-v1-base",
        {
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "cross_attention_dim": 2048,
            "attention_head_dim": (5, 10, 20),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        {"clip_l": (768, 12), "clip_g": (1280, 32)},
        1024,
        XL_LATENT_SCALE,
    ),
}


def random_model(family: str, device: torch.device, dtype: torch.dtype) -> StandaloneBackbone:
    """A family's model ("sd15", "sd21", "sdxl"); on "meta" it has sizes and no numbers."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    shape = SHAPES[family]
    vae = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "latent_channels": 4,
        "scaling_factor": shape.latent_scale,
    }
    with torch.device("meta"):
        modules = UNet2DConditionModel(**shape.unet), AutoencoderKL(**vae)
    unet, autoencoder = (_filled(module, device, dtype) for module in modules)
    details = Architecture(
        family=shape.architecture,
        unet={"block_out_channels": unet.config["block_out_channels"]},
        vae_kind="kl",
        vae=vae,
        factor=8,
        encoders=(),
        prediction="v_prediction" if family == "sd21" else "epsilon",
        native_size=shape.side,
        latent_scale=shape.latent_scale,
    )
    texts = [_text(family, name, device, dtype) for name in shape.texts]
    text = texts[0] if len(texts) == 1 else JointText(*texts)
    return StandaloneBackbone(unet, autoencoder, text, details, f"random {family}", lambda: "0" * 64)


def _text(family: str, name: str, device: torch.device, dtype: torch.dtype) -> ClipText:
    from transformers import CLIPTextConfig, CLIPTextModel

    width, layers = SHAPES[family].texts[name]
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        hidden_act="quick_gelu" if name == "clip_l" else "gelu",
        bos_token_id=49406,
        eos_token_id=49407,
    )
    with torch.device("meta"):
        module = CLIPTextModel(config)
    projection = None if name == "clip_l" else torch.eye(width, device=device, dtype=dtype)
    return ClipText(
        name,
        _filled(module, device, dtype),
        layers_early=int(family != "sd15"),
        normalized=family != "sdxl",
        projection=projection,
    )


def _filled(module: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Weights of the size that training starts with: norms change nothing, the rest is small and random."""
    module = module.to(dtype).to_empty(device=device)
    rng = torch.Generator(device="cpu" if device.type == "meta" else device).manual_seed(0)
    for name, weight in module.named_parameters():
        weight.requires_grad_(False)
        if device.type == "meta":
            continue
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.02, generator=rng)
        else:
            weight.fill_(float(name.endswith("weight")))
    for name, buffer in module.named_buffers():
        if name.endswith("position_ids") and device.type != "meta":
            buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
    return module
