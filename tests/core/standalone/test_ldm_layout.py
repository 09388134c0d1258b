from __future__ import annotations

from collections.abc import Mapping

import open_clip
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from tiny_checkpoint import tiny
from torch import Tensor

from ice_core.standalone.ldm import (
    text_state_from_open_clip,
    text_state_to_open_clip,
    to_original_layout,
    unet_names,
    vae_names,
)


def assert_same(converted: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    assert converted.keys() == source.keys()
    assert all(torch.equal(converted[k], v) for k, v in source.items())


@pytest.mark.parametrize("like_sd1", [False, True])
def test_diffusers_own_converter_reads_back_the_unet(like_sd1: bool) -> None:
    model = tiny(like_sd1)
    assert_same(convert_ldm_unet_checkpoint(model.state, model.unet.config), model.unet.state_dict())


def test_diffusers_own_converter_reads_back_the_autoencoder() -> None:
    model = tiny(like_sd1=True)
    assert_same(convert_ldm_vae_checkpoint(model.state, model.vae.config), model.vae.state_dict())


def test_a_tiny_autoencoder_computes_the_same_as_the_layout_says() -> None:
    """TAESD as its authors published it, written out: two plain sequences, the decoder's first a clamp."""
    model = tiny(like_sd1=False)
    prefix = "first_stage_model.taesd_"
    state = {k.removeprefix(prefix): v for k, v in model.state.items() if k.startswith(prefix)}

    def layer(name: str, x: Tensor) -> Tensor:
        if f"{name}.weight" in state:
            bias = state.get(f"{name}.bias")
            # Convolutions between levels have no bias: they halve in the encoder.
            stride = 2 if bias is None and name.startswith("encoder") else 1
            return F.conv2d(x, state[f"{name}.weight"], bias, stride, padding=1)
        y = x
        for i in (0, 2, 4):
            y = F.conv2d(
                y if i == 0 else y.relu(),
                *(state[f"{name}.conv.{i}.{n}"] for n in ("weight", "bias")),
                padding=1,
            )
        return (y + x).relu()

    images = torch.rand(1, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    z = images
    for i in range(15):
        z = layer(f"encoder.{i}", z)
    torch.testing.assert_close(z, model.vae.encode(images * 2 - 1).latents)
    y = torch.tanh(z / 3) * 3
    for i in range(1, 20):
        if i == 2:
            y = y.relu()
        elif i in (6, 11, 16):
            y = F.interpolate(y, scale_factor=2)
        else:
            y = layer(f"decoder.{i}", y)
    torch.testing.assert_close(y * 2 - 1, model.vae.decode(z).sample)
    torch.testing.assert_close(model.state["first_stage_model.vae_scale"], torch.tensor(0.18215))
    assert model.state["first_stage_model.vae_shift"] == 0


def test_a_full_size_model_gets_stable_diffusion_1_names_and_shapes() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
    state = to_original_layout(unet, vae, {})
    assert sum(k.startswith("model.diffusion_model.") for k in state) == 686
    assert sum(k.startswith("first_stage_model.") for k in state) == 248
    u, v = "model.diffusion_model.", "first_stage_model."
    shapes = {
        u + "time_embed.0.weight": (1280, 320),
        u + "input_blocks.0.0.weight": (320, 4, 3, 3),
        u + "input_blocks.1.1.proj_in.weight": (320, 320, 1, 1),
        u + "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
        u + "input_blocks.3.0.op.weight": (320, 320, 3, 3),
        u + "input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
        u + "middle_block.1.norm.weight": (1280,),
        u + "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        u + "output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
        u + "output_blocks.11.1.transformer_blocks.0.ff.net.0.proj.weight": (2560, 320),
        u + "out.2.weight": (4, 320, 3, 3),
        v + "encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        v + "encoder.down.2.downsample.conv.weight": (512, 512, 3, 3),
        v + "encoder.mid.attn_1.q.weight": (512, 512, 1, 1),
        v + "decoder.mid.attn_1.proj_out.weight": (512, 512, 1, 1),
        v + "decoder.mid.attn_1.norm.bias": (512,),
        v + "decoder.up.0.block.0.nin_shortcut.weight": (128, 256, 1, 1),
        v + "decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
        v + "decoder.norm_out.weight": (128,),
        v + "post_quant_conv.weight": (4, 4, 1, 1),
    }
    assert {k: tuple(state[k].shape) for k in shapes} == shapes


def test_no_two_weights_share_a_name() -> None:
    model = tiny(like_sd1=True)
    for names in (unet_names(model.unet.state_dict(), 2), vae_names(model.vae.state_dict(), 2)):
        assert len(set(names.values())) == len(names)


def test_open_clip_text_weights_survive_the_round_trip() -> None:
    text = tiny(like_sd1=False).text_state
    assert_same(text_state_from_open_clip(text_state_to_open_clip(text)), text)


def test_open_clip_computes_the_same_text_features_from_converted_weights() -> None:
    model = tiny(like_sd1=False)
    tower = open_clip.CLIP(
        embed_dim=64,
        vision_cfg={"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        text_cfg={"width": 64, "heads": 2, "layers": 2, "mlp_ratio": 1.5},
        quick_gelu=True,
    ).eval()
    state = text_state_to_open_clip(model.text_state) | {"text_projection": torch.eye(64)}
    assert not tower.load_state_dict(state, strict=False).unexpected_keys
    ids = open_clip.get_tokenizer("ViT-B-32")(["a photo of a striped ball"])
    with torch.no_grad():
        theirs = tower.encode_text(ids)
        ours = model.text(input_ids=ids).last_hidden_state[0, ids[0].argmax()]
    torch.testing.assert_close(ours[None], theirs, atol=1e-5, rtol=1e-5)
