"""Names of weights: diffusers, transformers and open_clip modules against the original ("LDM") layout.

Every mapping goes from a module's own key to the original one, so that the same table writes a checkpoint
and reads it. The autoencoder is Stable Diffusion's own (AutoencoderKL) or TAESD (AutoencoderTiny).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer.text_model."
LATENT_SCALE = 0.18215
"""What hosts multiply Stable Diffusion 1's and 2's raw latents by (Rombach et al. 2022, appendix G)."""
XL_LATENT_SCALE = 0.13025
"""The same of Stable Diffusion XL, whose autoencoder was trained anew (Podell et al. 2023, section 2.4)."""

_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_OPEN_CLIP_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_OPEN_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def unet_names(keys: Iterable[str], layers_per_block: int) -> dict[str, str]:
    """diffusers U-Net key -> original key, without its prefix."""
    keys = list(keys)
    step = layers_per_block + 1
    attending = {m[1] for key in keys if (m := re.match(r"up_blocks\.(\d+)\.attentions\.", key))}

    def name(key: str) -> str:
        module, _, leaf = key.rpartition(".")
        if module in _UNET_ENDS:
            return f"{_UNET_ENDS[module]}.{leaf}"
        if m := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", key):
            return f"middle_block.{1 if m[1] == 'attentions' else 2 * int(m[2])}.{_inside(m[1], m[3])}"
        if m := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv\.(.+)", key):
            return f"input_blocks.{(int(m[1]) + 1) * step}.0.op.{m[2]}"
        if m := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv\.(.+)", key):
            last = int(m[1]) * step + layers_per_block
            return f"output_blocks.{last}.{2 if m[1] in attending else 1}.conv.{m[2]}"
        m = re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", key)
        if m is None:
            raise KeyError(f"no original name for the U-Net weight {key}")
        at = int(m[2]) * step + int(m[4])
        block = f"input_blocks.{at + 1}" if m[1] == "down" else f"output_blocks.{at}"
        return f"{block}.{int(m[3] == 'attentions')}.{_inside(m[3], m[5])}"

    return {key: name(key) for key in keys}


def _inside(kind: str, rest: str) -> str:
    if kind == "attentions":
        return rest
    module, _, leaf = rest.rpartition(".")
    return f"{_UNET_RESNET[module]}.{leaf}"


def vae_names(keys: Iterable[str], levels: int) -> dict[str, str]:
    """diffusers AutoencoderKL key -> original key, without its prefix."""

    def name(key: str) -> str:
        if m := re.match(r"(encoder|decoder)\.mid_block\.attentions\.0\.(.+)\.(\w+)", key):
            return f"{m[1]}.mid.attn_1.{_VAE_ATTENTION[m[2]]}.{m[3]}"
        key = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        if m := re.match(r"(encoder|decoder)\.mid_block\.resnets\.(\d)\.(.+)", key):
            return f"{m[1]}.mid.block_{int(m[2]) + 1}.{m[3]}"
        if m := re.match(r"(?:encoder|decoder)\.(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", key):
            # The original counts the decoder's levels from the finest.
            coder, level = ("encoder", int(m[2])) if m[1] == "down" else ("decoder", levels - 1 - int(m[2]))
            inner = {"resnets": f"block.{m[4]}", "downsamplers": "downsample", "upsamplers": "upsample"}[m[3]]
            return f"{coder}.{m[1]}.{level}.{inner}.{m[5]}"
        return key

    return {key: name(key) for key in keys}


def tiny_vae_names(keys: Iterable[str]) -> dict[str, str]:
    """diffusers AutoencoderTiny key -> key of the same autoencoder (TAESD) in hosts, without its prefix."""

    def name(key: str) -> str:
        coder, _, number, rest = key.split(".", 3)
        # The original decoder's layer 0 is the clamp, which diffusers keeps outside its list.
        return f"taesd_{coder}.{int(number) + (coder == 'decoder')}.{rest}"

    return {key: name(key) for key in keys}


def to_original_layout(
    unet: UNet2DConditionModel,
    vae: AutoencoderKL | AutoencoderTiny,
    text_state: Mapping[str, Tensor],
    text_prefix: str = TEXT_PREFIX,
    latent_scale: float = LATENT_SCALE,
) -> dict[str, Tensor]:
    """Weights under the keys of a single-file checkpoint, by default of Stable Diffusion 1.

    text_state: text weights, keys relative to `text_prefix`; latent_scale: what raw latents are multiplied
    by. Tensors are detached and contiguous. The attention of an AutoencoderKL is written as the 1 x 1
    convolutions [C, C, 1, 1] that it is in the original; an AutoencoderTiny takes TAESD's layout, with the
    `vae_scale` and `vae_shift` by which a host turns its outputs z into raw latents
    z / vae_scale + vae_shift.
    """
    unet_state, vae_state = unet.state_dict(), vae.state_dict()
    unet_map = unet_names(unet_state, unet.config["layers_per_block"])
    state = {UNET_PREFIX + unet_map[k]: v for k, v in unet_state.items()}
    if "encoder.layers.0.weight" in vae_state:
        vae_map = tiny_vae_names(vae_state)
        state |= {VAE_PREFIX + vae_map[k]: v for k, v in vae_state.items()}
        # A host's latents times its scale must be diffusers' (z - shift_factor) * scaling_factor.
        scale = latent_scale / vae.config["scaling_factor"]
        state[VAE_PREFIX + "vae_scale"] = torch.tensor(scale)
        state[VAE_PREFIX + "vae_shift"] = torch.tensor(0.0 - vae.config["shift_factor"] / scale)
    else:
        vae_map = vae_names(vae_state, len(vae.config["block_out_channels"]))
        for key, value in vae_state.items():
            convolution = "mid_block.attentions" in key and value.ndim == 2
            state[VAE_PREFIX + vae_map[key]] = value[:, :, None, None] if convolution else value
    state |= {text_prefix + k: v for k, v in text_state.items()}
    return {k: v.detach().contiguous() for k, v in state.items()}


def text_state_from_open_clip(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Text tower of an open_clip.CLIP state dict -> CLIP text weights, keys relative to `text_model.`.

    The projection has no place in a Stable Diffusion 1 checkpoint and is left behind.
    """
    layers = 1 + max(int(m[1]) for k in state_dict if (m := re.match(r"transformer\.resblocks\.(\d+)\.", k)))
    state = {ours: state_dict[theirs] for ours, theirs in _OPEN_CLIP_ENDS.items()}
    for i in range(layers):
        ours, theirs = f"encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for leaf in ("weight", "bias"):
            parts = state_dict[f"{theirs}attn.in_proj_{leaf}"].chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                state[f"{ours}self_attn.{name}_proj.{leaf}"] = part.contiguous()
            for a, b in _OPEN_CLIP_BLOCK.items():
                state[f"{ours}{a}.{leaf}"] = state_dict[f"{theirs}{b}.{leaf}"]
    return state


def text_state_to_open_clip(text_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse: CLIP text weights under open_clip.CLIP's keys, queries, keys and values in one matrix."""
    layers = 1 + max(int(m[1]) for k in text_state if (m := re.match(r"encoder\.layers\.(\d+)\.", k)))
    state = {theirs: text_state[ours] for ours, theirs in _OPEN_CLIP_ENDS.items()}
    for i in range(layers):
        ours, theirs = f"encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for leaf in ("weight", "bias"):
            parts = [text_state[f"{ours}self_attn.{n}_proj.{leaf}"] for n in "qkv"]
            state[f"{theirs}attn.in_proj_{leaf}"] = torch.cat(parts)
            for a, b in _OPEN_CLIP_BLOCK.items():
                state[f"{theirs}{b}.{leaf}"] = text_state[f"{ours}{a}.{leaf}"]
    return state
