"""Stable Diffusion 2.x: a U-Net that is told the hidden states of OpenCLIP's ViT-H/14, one layer early.

Source: the model cards and configurations that Stability AI published with its weights. The models of
512 x 512 pixels predict noise, those of 768 x 768 velocity (Salimans and Ho 2022).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ice_core.errors import IceError
from ice_core.standalone.architecture import (
    Architecture,
    EncoderArchitecture,
    Prediction,
    autoencoder,
    check_parts,
    check_task,
    lacking,
    open_clip_text_config,
    positive,
    said_prediction,
    unet_config,
)
from ice_core.standalone.backbone import StandaloneBackbone
from ice_core.standalone.clip_text import ClipText
from ice_core.standalone.kinds import Shapes
from ice_core.standalone.ldm import LATENT_SCALE, UNET_PREFIX
from ice_core.standalone.parts import read_projection, read_text_model, read_unet, read_vae
from ice_core.standalone.weight_file import WeightFile

ENCODER = "clip_h"
TITLE = "Stable Diffusion 2.x"
PADDING = 0
"""Id of the piece that fills a prompt up: open_clip pads with zeros."""
TEXT_PREFIXES = ("cond_stage_model.model.", "conditioner.embedders.0.model.")
"""Of the text encoder: as published, and as in SD-Turbo."""
_FAMILIES: Mapping[Prediction, tuple[str, int]] = {
    "epsilon": ("stable-diffusion-v2-512", 512),
    "v_prediction": ("stable-diffusion-v2-768-v", 768),
}
"""Model-spec name and side in pixels."""
_CONTEXT = UNET_PREFIX + "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
_WIDTH = 1024
_TELLTALE = UNET_PREFIX + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
_LEAST_SPREAD_OF_V = 0.09


def recognises(shapes: Shapes) -> bool:
    """Whether a file has this family's text encoder, or a U-Net that takes text as wide as it gives."""
    if any(key.startswith(TEXT_PREFIXES) for key in shapes):
        return True
    return len(shape := shapes.get(_CONTEXT, ())) > 1 and shape[1] == _WIDTH


def infer(shapes: Shapes, metadata: Mapping[str, str], predicts: Prediction) -> Architecture:
    """The architecture of a checkpoint in the original layout.

    predicts: what its weights look like (`looks_like`), unless `ice.prediction` or
    `modelspec.prediction_type` of the metadata say otherwise; `ice.native_size` likewise. Raises IceError
    where the parts are not Stable Diffusion 2's.
    """
    prefix = next((p for p in TEXT_PREFIXES if any(k.startswith(p) for k in shapes)), TEXT_PREFIXES[0])
    check_parts(shapes, {"text encoder": prefix})
    prediction = said_prediction(metadata, predicts)
    try:
        unet = unet_config(shapes)
        kind, vae, factor = autoencoder(shapes, LATENT_SCALE)
        text = EncoderArchitecture(ENCODER, prefix, open_clip_text_config(shapes, prefix), open_clip=True)
    except KeyError as error:
        raise lacking(error) from None
    check_task(unet, vae, (text,))
    family, side = _FAMILIES[prediction]
    return Architecture(
        family=family,
        unet=unet,
        vae_kind=kind,
        vae=vae,
        factor=factor,
        encoders=(text,),
        prediction=prediction,
        native_size=positive(metadata, "ice.native_size", side),
    )


def looks_like(file: WeightFile) -> Prediction:
    """What the U-Net predicts, by its weights: no published checkpoint says it.

    The shift of the last transformer's first norm is spread further in those that were trained on velocity;
    ComfyUI, whose measurement this is, draws the line at a standard deviation of 0.09.
    """
    shift = file.tensors.get(_TELLTALE)
    if shift is not None and float(shift.float().std(correction=0)) > _LEAST_SPREAD_OF_V:
        return "v_prediction"
    return "epsilon"


def load(file: WeightFile, device: torch.device, dtype: torch.dtype) -> StandaloneBackbone:
    """The model of a checkpoint. Raises IceError where `infer` does, or a weight is missing or too much."""
    try:
        details = infer(file.shapes, file.metadata, looks_like(file))
    except IceError as error:
        raise IceError(f"{file.path.name}: {error}") from None
    (text,) = details.encoders
    return StandaloneBackbone(
        read_unet(details, file, TITLE, device, dtype),
        read_vae(details, file, device, dtype),
        ClipText(
            ENCODER,
            read_text_model(text, file, device, dtype),
            layers_early=1,
            padding=PADDING,
            projection=read_projection(text, file, device, dtype),
        ),
        details,
        name=file.path.stem,
        fingerprint=file.fingerprint,
    )
