"""A model family is a file: nothing of the package but its list of families knows the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from ice_core.errors import IceError
from ice_core.model.backbone import Backbone, Prompt, TextFeatures
from ice_core.standalone import StandaloneBackbone, checkpoint, load_checkpoint
from ice_core.standalone.architecture import Architecture
from ice_core.standalone.kinds import Shapes
from ice_core.standalone.weight_file import WeightFile


class TwoEncoders:
    """Stands for SDXL's two: their widths add up, and the U-Net is told a pooled text and sizes as well."""

    widths: Mapping[str, int] = {"clip_l": 24, "clip_g": 40}
    adaptable: Mapping[str, nn.Linear] = {}

    def word_rows(self, text: str) -> dict[str, Tensor]:
        return {name: torch.zeros(1, width) for name, width in self.widths.items()}

    def encode(self, prompts: Sequence[Prompt], contexts: int | None = None) -> TextFeatures:
        rows = torch.tensor([len(prompt.text) / 10 for prompt in prompts])[:, None]
        extra = {"text_embeds": rows.expand(-1, 16), "time_ids": torch.full((len(prompts), 6), 64.0)}
        columns = tuple(((1,),) for _ in prompts)
        return TextFeatures(rows[..., None].expand(-1, 77, 64), rows.expand(-1, 16), columns, extra)

    def state(self) -> dict[str, Tensor]:
        return {}


def two_encoder_model() -> StandaloneBackbone:
    torch.manual_seed(0)
    arguments = {
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 64,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 16 + 6 * 8,
    }
    details = Architecture(
        family="stable-diffusion-xl-v1-base",
        unet=arguments,
        vae_kind="tiny",
        vae={"latent_channels": 4},
        factor=8,
        encoders=(),
        prediction="epsilon",
        native_size=64,
    )
    unet, vae = UNet2DConditionModel(**arguments), AutoencoderTiny()
    return StandaloneBackbone(unet, vae, TwoEncoders(), details, "two", lambda: "0" * 64)


class Family:
    """Claims the files that have its mark."""

    def recognises(self, shapes: Shapes) -> bool:
        return "two.mark" in shapes

    def load(self, file: WeightFile, device: torch.device, dtype: torch.dtype) -> StandaloneBackbone:
        return two_encoder_model()


def test_a_listed_family_gets_its_files_and_the_others_keep_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file({"two.mark": torch.zeros(1)}, tmp_path / "two.safetensors")
    with pytest.raises(IceError, match="no checkpoint of a known kind; supported are Stable Diffusion 1"):
        load_checkpoint(tmp_path / "two.safetensors")
    monkeypatch.setattr(checkpoint, "FAMILIES", (*checkpoint.FAMILIES, Family()))
    assert load_checkpoint(tmp_path / "two.safetensors").architecture == "stable-diffusion-xl-v1-base"
    save_file({"first_stage_model.x": torch.zeros(1)}, tmp_path / "one.safetensors")
    with pytest.raises(IceError, match="no U-Net and no text encoder"):
        load_checkpoint(tmp_path / "one.safetensors")


def test_what_a_model_takes_beside_the_context_reaches_the_u_net() -> None:
    backbone: Backbone = two_encoder_model()
    assert backbone.encoders == {"clip_l": 24, "clip_g": 40}
    noisy, times = torch.ones(2, 4, 8, 8), torch.tensor([10, 900])
    text = backbone.encode_prompts([Prompt(("a ball",))])
    told = backbone.predict(noisy, times, text)
    other = TextFeatures(
        text.context, text.pooled, text.columns, {**text.extra, "time_ids": torch.ones(1, 6)}
    )
    assert told.shape == noisy.shape
    assert not torch.equal(told, backbone.predict(noisy, times, other))
