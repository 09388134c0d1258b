"""Stable Diffusion 1.x: a U-Net that is told one CLIP's hidden states (Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ice_core.errors import IceError
from ice_core.standalone.architecture import (
    Architecture,
    EncoderArchitecture,
    autoencoder,
    check_parts,
    check_task,
    clip_text_config,
    lacking,
    positive,
    said_prediction,
    unet_config,
)
from ice_core.standalone.backbone import StandaloneBackbone
from ice_core.standalone.clip_text import ClipText
from ice_core.standalone.kinds import Shapes
from ice_core.standalone.ldm import LATENT_SCALE, TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX
from ice_core.standalone.parts import read_text_model, read_unet, read_vae
from ice_core.standalone.weight_file import WeightFile

ENCODER = "clip_l"
TITLE = "Stable Diffusion 1.x"
_OLD_TEXT_PREFIX = "cond_stage_model.transformer."


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
    check_parts(shapes, {"text encoder": text_prefix})
    prediction = said_prediction(metadata, "epsilon")
    try:
        unet = unet_config(shapes, positive(metadata, "ice.unet_heads", 8))
        kind, vae, factor = autoencoder(shapes, LATENT_SCALE)
        text = EncoderArchitecture(ENCODER, text_prefix, clip_text_config(shapes, text_prefix, metadata))
    except KeyError as error:
        raise lacking(error) from None
    check_task(unet, vae, (text,))
    return Architecture(
        family="stable-diffusion-v1",
        unet=unet,
        vae_kind=kind,
        vae=vae,
        factor=factor,
        encoders=(text,),
        prediction=prediction,
        native_size=positive(metadata, "ice.native_size", 512),
    )


def load(file: WeightFile, device: torch.device, dtype: torch.dtype) -> StandaloneBackbone:
    """The model of a checkpoint. Raises IceError where `infer` does, or a weight is missing or too much."""
    try:
        details = infer(file.shapes, file.metadata)
    except IceError as error:
        raise IceError(f"{file.path.name}: {error}") from None
    (text,) = details.encoders
    return StandaloneBackbone(
        read_unet(details, file, TITLE, device, dtype),
        read_vae(details, file, device, dtype),
        ClipText(ENCODER, read_text_model(text, file, device, dtype)),
        details,
        name=file.path.stem,
        fingerprint=file.fingerprint,
    )
