"""U-Net, autoencoder and text encoders of a checkpoint as modules with the file's weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ice_core.errors import IceError
from ice_core.standalone.architecture import Architecture, EncoderArchitecture
from ice_core.standalone.ldm import (
    UNET_PREFIX,
    VAE_PREFIX,
    text_state_from_open_clip,
    tiny_vae_names,
    unet_names,
    vae_names,
)
from ice_core.standalone.weight_file import WeightFile

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel

# Modules are imported where they are made: that takes many seconds, and a wrong file should be refused at
# once. They are made on "meta": no memory is spent on random weights that the file's own replace.


def read_unet(
    details: Architecture, file: WeightFile, title: str, device: torch.device, dtype: torch.dtype
) -> UNet2DConditionModel:
    """The U-Net. title: of the family, for people. Raises IceError where it has a weight too few or too many,
    or one of another shape."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**details.unet, sample_size=details.native_size // details.factor)
    names = unet_names(unet.state_dict(), details.unet["layers_per_block"])
    known = {UNET_PREFIX + name for name in names.values()}
    if unknown := sorted(k for k in file.tensors.keys() - known if k.startswith(UNET_PREFIX)):
        raise IceError(
            f"{file.path.name}: the U-Net has {len(unknown)} weights that are no part of {title}, first "
            f"{unknown[0]}; use a plain {title} checkpoint"
        )
    return file.fill(unet, {k: UNET_PREFIX + v for k, v in names.items()}, device, dtype)


def read_vae(
    details: Architecture, file: WeightFile, device: torch.device, dtype: torch.dtype
) -> AutoencoderKL | AutoencoderTiny:
    """The autoencoder. Raises IceError where a weight is missing or of another shape."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    vae: AutoencoderKL | AutoencoderTiny
    with torch.device("meta"):
        if details.vae_kind == "tiny":
            vae = AutoencoderTiny(**details.vae, **_tiny_scale(file, details.latent_scale))
            names = tiny_vae_names(vae.state_dict())
        else:
            vae = AutoencoderKL(**details.vae, sample_size=details.native_size)
            names = vae_names(vae.state_dict(), len(details.vae["block_out_channels"]))
    return file.fill(vae, {k: VAE_PREFIX + v for k, v in names.items()}, device, dtype)


def _tiny_scale(file: WeightFile, latent_scale: float) -> dict[str, float]:
    """diffusers' factors for a host's `vae_scale` and `vae_shift` (1 and 0 where the file has none)."""
    scale, shift = (
        float(file.tensors[VAE_PREFIX + name]) if VAE_PREFIX + name in file.tensors else default
        for name, default in (("vae_scale", 1.0), ("vae_shift", 0.0))
    )
    return {"scaling_factor": latent_scale / scale, "shift_factor": 0.0 - shift * scale}


def read_text_model(
    encoder: EncoderArchitecture, file: WeightFile, device: torch.device, dtype: torch.dtype
) -> CLIPTextModel:
    """A text encoder, in either layout. Raises IceError where a weight is missing or of another shape."""
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        text = CLIPTextModel(CLIPTextConfig(**encoder.config))
    # The one buffer that no file holds; `text_model.embeddings` up to transformers 4, `embeddings` from 5 on.
    embeddings = next(module for name, module in text.named_modules() if name.endswith("embeddings"))
    embeddings.position_ids = torch.arange(encoder.config["max_position_embeddings"])[None]
    if encoder.open_clip:
        file = _from_open_clip(encoder, file)
    names = {k: encoder.prefix + k.removeprefix("text_model.") for k in text.state_dict()}
    return file.fill(text, names, device, dtype)


def _from_open_clip(encoder: EncoderArchitecture, file: WeightFile) -> WeightFile:
    """The encoder's weights alone, under the names of transformers."""
    of = {k.removeprefix(encoder.prefix): v for k, v in file.tensors.items() if k.startswith(encoder.prefix)}
    try:
        state = text_state_from_open_clip(of)
    except KeyError as error:
        raise IceError(
            f"{file.path.name} lacks the weight {encoder.prefix}{error.args[0]}: it is incomplete, or of an "
            "unknown variant; download it again or use another checkpoint"
        ) from None
    return replace(file, tensors={encoder.prefix + k: v for k, v in state.items()})


def read_projection(
    encoder: EncoderArchitecture, file: WeightFile, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """An open_clip encoder's projection [P, D] of what it says at the end token.

    Raises IceError where the file has none.
    """
    key, width = f"{encoder.prefix}text_projection", encoder.config["hidden_size"]
    value = file.tensors.get(key)
    if value is None or value.ndim != 2 or len(value) != width:
        raise IceError(
            f"{file.path.name} lacks the weight {key} of {width} rows: it was saved by a tool that leaves "
            "out what pictures do not need; use the checkpoint as its maker published it"
        )
    return value.T.to(device, dtype).contiguous()
