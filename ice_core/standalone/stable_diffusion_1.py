"""Stable Diffusion 1.x: a U-Net that is told one CLIP's hidden states (Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, cast

import torch

from ice_core.errors import IceError
from ice_core.standalone.architecture import (
    Architecture,
    clip_text_config,
    positive,
    tiny_vae_config,
    unet_config,
    vae_config,
)
from ice_core.standalone.backbone import StandaloneBackbone
from ice_core.standalone.clip_text import ClipText
from ice_core.standalone.kinds import SUPPORTED, Shapes
from ice_core.standalone.ldm import (
    LATENT_SCALE,
    TEXT_PREFIX,
    UNET_PREFIX,
    VAE_PREFIX,
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

ENCODER = "clip_l"
_OLD_TEXT_PREFIX = "cond_stage_model.transformer."
_TASKS = {8: "an instruction-editing (8-channel)", 9: "an inpainting (9-channel)"}


def recognises(shapes: Shapes) -> bool:
    """Whether a file has any of the family's parts; `infer` says what it lacks."""
    return any(key.startswith((UNET_PREFIX, VAE_PREFIX, _OLD_TEXT_PREFIX)) for key in shapes)


def infer(shapes: Shapes, metadata: Mapping[str, str]) -> Architecture:
    """The architecture of a checkpoint in the original layout.

    Head counts do not show in shapes: 8 in the U-Net and width / 64 in the text encoder as in Stable
    Diffusion 1, unless the metadata's `ice.unet_heads` and `ice.text_heads` say otherwise; `ice.prediction`
    ("epsilon") and `ice.native_size` (512) likewise. Raises IceError where the parts are not Stable
    Diffusion 1's.
    """
    text_prefix = TEXT_PREFIX if any(k.startswith(TEXT_PREFIX) for k in shapes) else _OLD_TEXT_PREFIX
    parts = {"U-Net": UNET_PREFIX, "VAE": VAE_PREFIX, "text encoder": text_prefix}
    absent = [part for part, prefix in parts.items() if not any(k.startswith(prefix) for k in shapes)]
    if absent:
        raise IceError(f"this file has no {' and no '.join(absent)}; {SUPPORTED}")
    prediction = metadata.get("ice.prediction", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise IceError(f"the metadata says ice.prediction={prediction!r}; it must be epsilon or v_prediction")
    try:
        unet = unet_config(shapes, positive(metadata, "ice.unet_heads", 8))
        tiny = VAE_PREFIX + "taesd_decoder.1.weight" in shapes
        vae = tiny_vae_config(shapes) if tiny else vae_config(shapes)
        text = clip_text_config(shapes, text_prefix, metadata)
    except KeyError as error:
        raise IceError(
            f"this file lacks the weight {error.args[0]}, so it is cut short or of another kind; {SUPPORTED}"
        ) from None
    if unet["cross_attention_dim"] != text["hidden_size"]:
        raise IceError(
            f"this file is a mixed checkpoint: the U-Net takes text {unet['cross_attention_dim']} wide, the "
            f"text encoder gives {text['hidden_size']}; {SUPPORTED}"
        )
    if vae["latent_channels"] != unet["in_channels"]:
        task = _TASKS.get(unet["in_channels"], f"a {unet['in_channels']}-channel")
        raise IceError(f"this file is {task} model; {SUPPORTED}")
    return Architecture(
        family="stable-diffusion-v1",
        unet=unet,
        vae_kind="tiny" if tiny else "kl",
        vae=vae,
        factor=8 if tiny else 2 ** (len(vae["block_out_channels"]) - 1),
        text=text,
        text_prefix=text_prefix,
        prediction=cast(Literal["epsilon", "v_prediction"], prediction),
        native_size=positive(metadata, "ice.native_size", 512),
    )


def load(file: WeightFile, device: torch.device, dtype: torch.dtype) -> StandaloneBackbone:
    """The model of a checkpoint. Raises IceError where `infer` does, or a weight is missing or too much."""
    try:
        details = infer(file.shapes, file.metadata)
    except IceError as error:
        raise IceError(f"{file.path.name}: {error}") from None
    unet, vae, text = _modules(details, file)
    unet_map = unet_names(unet.state_dict(), details.unet["layers_per_block"])
    vae_map = (
        tiny_vae_names(vae.state_dict())
        if details.vae_kind == "tiny"
        else vae_names(vae.state_dict(), len(details.vae["block_out_channels"]))
    )
    known = {UNET_PREFIX + name for name in unet_map.values()}
    if unknown := sorted(k for k in file.tensors.keys() - known if k.startswith(UNET_PREFIX)):
        raise IceError(
            f"{file.path.name}: the U-Net has {len(unknown)} weights that are no part of Stable Diffusion 1, "
            f"first {unknown[0]}; use a plain Stable Diffusion 1.x checkpoint"
        )
    text_map = {k: details.text_prefix + k.removeprefix("text_model.") for k in text.state_dict()}
    return StandaloneBackbone(
        file.fill(unet, {k: UNET_PREFIX + v for k, v in unet_map.items()}, device, dtype),
        file.fill(vae, {k: VAE_PREFIX + v for k, v in vae_map.items()}, device, dtype),
        ClipText(ENCODER, file.fill(text, text_map, device, dtype)),
        details,
        name=file.path.stem,
        fingerprint=file.fingerprint,
    )


def _modules(
    details: Architecture, file: WeightFile
) -> tuple[UNet2DConditionModel, AutoencoderKL | AutoencoderTiny, CLIPTextModel]:
    """U-Net, autoencoder and text encoder without weights."""
    # Here and not above: these take many seconds, and a wrong file should be refused at once.
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    # No memory is spent on random weights that the file's own replace.
    with torch.device("meta"):
        unet = UNet2DConditionModel(**details.unet, sample_size=details.native_size // details.factor)
        vae = (
            AutoencoderTiny(**details.vae, **_tiny_scale(file))
            if details.vae_kind == "tiny"
            else AutoencoderKL(**details.vae, sample_size=details.native_size)
        )
        text = CLIPTextModel(CLIPTextConfig(**details.text))
    # The one buffer that no file holds; `text_model.embeddings` up to transformers 4, `embeddings` from 5 on.
    embeddings = next(module for name, module in text.named_modules() if name.endswith("embeddings"))
    embeddings.position_ids = torch.arange(details.text["max_position_embeddings"])[None]
    return unet, vae, text


def _tiny_scale(file: WeightFile) -> dict[str, float]:
    """diffusers' factors for a host's `vae_scale` and `vae_shift` (1 and 0 where the file has none)."""
    scale, shift = (
        float(file.tensors[VAE_PREFIX + name]) if VAE_PREFIX + name in file.tensors else default
        for name, default in (("vae_scale", 1.0), ("vae_shift", 0.0))
    )
    return {"scaling_factor": LATENT_SCALE / scale, "shift_factor": 0.0 - shift * scale}
