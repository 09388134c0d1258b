"""Small random models of every family, whole and in the original layout, which hosts load as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import save_file
from tiny_checkpoint import unsettle
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from ice_core.standalone.ldm import (
    LATENT_SCALE,
    TEXT_PREFIX,
    XL_LATENT_SCALE,
    text_state_to_open_clip,
    to_original_layout,
)

FAMILIES = ("sd1", "sd2", "sd2-v", "sdxl", "sdxl-v")
NATIVE_SIZE = 64


@dataclass(frozen=True)
class TinyFamily:
    """name: one of `FAMILIES`; texts: encoders by name; prefixes: where their keys start in the file; marks:
    further keys of the file."""

    name: str
    unet: UNet2DConditionModel
    vae: AutoencoderTiny
    texts: Mapping[str, CLIPTextModelWithProjection]
    prefixes: Mapping[str, str]
    marks: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def state(self) -> dict[str, Tensor]:
        text: dict[str, Tensor] = {}
        for name, encoder in self.texts.items():
            state = encoder.state_dict()
            projection = state.pop("text_projection.weight")
            state = {key.removeprefix("text_model."): value for key, value in state.items()}
            if name != "clip_l":
                state = text_state_to_open_clip(state) | {"text_projection": projection.T}
            text |= {self.prefixes[name] + key: value for key, value in state.items()}
        scale = XL_LATENT_SCALE if "clip_g" in self.texts else LATENT_SCALE
        state = to_original_layout(self.unet, self.vae, text, "", scale)
        return state | dict(self.marks)

    def write(self, path: Path) -> Path:
        save_file(self.state, path, {"ice.native_size": str(NATIVE_SIZE)})
        return path


@cache
def tiny_family(name: str) -> TinyFamily:
    """The same weights for the same name."""
    torch.manual_seed(FAMILIES.index(name))
    family = {"sd1": _sd1, "sd2": _sd2, "sdxl": _sdxl}[name.partition("-")[0]](name)
    for module in (family.unet, family.vae, *family.texts.values()):
        module.eval().requires_grad_(False)
        unsettle(module)
    if name.startswith("sd2"):
        shift = family.unet.up_blocks[3].attentions[2].transformer_blocks[0].norm1.bias
        shift.copy_(torch.randn(shift.shape) * (0.2 if name == "sd2-v" else 0.02))
    for module in (family.unet, *family.texts.values()):
        for parameter in module.parameters():
            # Hosts keep text encoders in half precision.
            parameter.copy_(parameter.half())
    return family


def _text(width: int, act: str) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=3,
            num_attention_heads=width // 64,
            hidden_act=act,
            bos_token_id=49406,
            eos_token_id=49407,
        )
    )


def _sd1(name: str) -> TinyFamily:
    down = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    unet = UNet2DConditionModel(
        block_out_channels=(64, 64),
        layers_per_block=2,
        down_block_types=down,
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=8,
    )
    return TinyFamily(
        name, unet, AutoencoderTiny(), {"clip_l": _text(64, "quick_gelu")}, {"clip_l": TEXT_PREFIX}
    )


def _sd2(name: str) -> TinyFamily:
    """With as many blocks as the true one: hosts look at a weight of the last to tell what it predicts."""
    unet = UNet2DConditionModel(
        block_out_channels=(64, 64, 64, 64),
        layers_per_block=2,
        cross_attention_dim=64,
        attention_head_dim=(1, 1, 1, 1),
        use_linear_projection=True,
    )
    texts = {"clip_h": _text(64, "gelu")}
    return TinyFamily(name, unet, AutoencoderTiny(), texts, {"clip_h": "cond_stage_model.model."})


def _sdxl(name: str) -> TinyFamily:
    unet = UNet2DConditionModel(
        block_out_channels=(64, 64, 128),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        cross_attention_dim=64 + 128,
        attention_head_dim=(1, 1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=128 + 6 * 256,
    )
    texts = {"clip_l": _text(64, "quick_gelu"), "clip_g": _text(128, "gelu")}
    prefixes = {
        "clip_l": "conditioner.embedders.0.transformer.text_model.",
        "clip_g": "conditioner.embedders.1.model.",
    }
    # As they are published: without a number.
    marks = {key: torch.zeros(0) for key in ("v_pred", "ztsnr")} if name == "sdxl-v" else {}
    return TinyFamily(name, unet, AutoencoderTiny(), texts, prefixes, marks)
