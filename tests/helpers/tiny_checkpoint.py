"""Small random Stable Diffusion 1 models in one file of the original layout, for tests of the loader."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from ice_core.standalone.ldm import to_original_layout


@dataclass(frozen=True)
class Tiny:
    """The modules a checkpoint was written from, in eval mode, and its metadata."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL | AutoencoderTiny
    text: CLIPTextModel
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def text_state(self) -> dict[str, Tensor]:
        return {k.removeprefix("text_model."): v for k, v in self.text.state_dict().items()}

    @property
    def state(self) -> dict[str, Tensor]:
        return to_original_layout(self.unet, self.vae, self.text_state)

    def write(self, path: Path) -> Path:
        save_file(self.state, path, self.metadata)
        return path


@cache
def tiny(like_sd1: bool) -> Tiny:
    """like_sd1: three levels, the last without attention, two layers each, default head counts, a KL
    autoencoder; else two attending levels of one layer, head counts in the metadata, a tiny autoencoder."""
    torch.manual_seed(0)
    layers = 2 if like_sd1 else 1
    down = ["CrossAttnDownBlock2D"] * 2 + ["DownBlock2D"] * like_sd1
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64, 64)[: len(down)],
        layers_per_block=layers,
        down_block_types=down,
        up_block_types=[name.replace("Down", "Up") for name in reversed(down)],
        cross_attention_dim=64,
        attention_head_dim=8 if like_sd1 else 4,
    )
    vae = AutoencoderTiny()
    if like_sd1:
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(32, 64),
            layers_per_block=layers,
        )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=1 if like_sd1 else 2,
            hidden_act="quick_gelu",
            bos_token_id=49406,
            eos_token_id=49407,
        )
    )
    metadata = {"ice.unet_heads": "4", "ice.text_heads": "2", "ice.native_size": "32"}
    for module in (unet, vae, text):
        module.eval().requires_grad_(False)
        unsettle(module)
    return Tiny(unet, vae, text, {} if like_sd1 else metadata)


def unsettle(module: nn.Module) -> None:
    """Move every weight off its initial value, so that two norms or biases are never alike."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter += 0.1 * torch.randn(parameter.shape)
