"""Stable Diffusion XL: a U-Net that is told the hidden states of two CLIPs, a pooled text and sizes.

Source: Podell et al., "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis", arXiv
2307.01952. Of ViT-L/14 and ViT-bigG/14 it takes what they say one layer before the last, side by side, and
of the latter the projected text. Its descendants that predict velocity carry marks among their weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ice_core.errors import IceError
from ice_core.model.lora import TEXT
from ice_core.standalone.architecture import (
    Architecture,
    EncoderArchitecture,
    autoencoder,
    check_parts,
    check_task,
    clip_text_config,
    lacking,
    open_clip_text_config,
    positive,
    said_prediction,
    unet_config,
)
from ice_core.standalone.backbone import StandaloneBackbone
from ice_core.standalone.clip_text import ClipText
from ice_core.standalone.joint_text import JointText
from ice_core.standalone.kinds import SUPPORTED, Shapes
from ice_core.standalone.ldm import UNET_PREFIX, XL_LATENT_SCALE
from ice_core.standalone.parts import read_projection, read_text_model, read_unet, read_vae
from ice_core.standalone.weight_file import WeightFile

TITLE = "Stable Diffusion XL"
TEXT_PREFIX, OPEN_CLIP_PREFIX = (
    "conditioner.embedders.0.transformer.text_model.",
    "conditioner.embedders.1.model.",
)
V_PREDICTION_KEY, ZERO_TERMINAL_KEY = "v_pred", "ztsnr"
"""Weights without content that mark a model of velocity, and one whose last timestep is pure noise."""
OPEN_CLIP_PADDING = 0
SIZE_WIDTH = 256
"""Numbers that each of the six sizes becomes."""
_LABEL = UNET_PREFIX + "label_emb.0.0.weight"
_MIDDLE = UNET_PREFIX + "middle_block.1.norm.weight"


def recognises(shapes: Shapes) -> bool:
    """Whether a file has one of this family's text encoders, or a U-Net that takes pooled text and sizes."""
    return _LABEL in shapes or any(key.startswith((TEXT_PREFIX, OPEN_CLIP_PREFIX)) for key in shapes)


def infer(shapes: Shapes, metadata: Mapping[str, str]) -> Architecture:
    """The architecture of a checkpoint in the original layout.

    It predicts noise unless it is marked, or `ice.prediction` or `modelspec.prediction_type` of the metadata
    say otherwise; `ice.native_size` (1024) likewise. Raises IceError where the parts are not Stable
    Diffusion XL's.
    """
    check_parts(shapes, {"CLIP-L text encoder": TEXT_PREFIX, "CLIP-G text encoder": OPEN_CLIP_PREFIX})
    prediction = said_prediction(metadata, "v_prediction" if V_PREDICTION_KEY in shapes else "epsilon")
    if _MIDDLE not in shapes:
        raise IceError(
            "this file is a relative of Stable Diffusion XL with layers left out (SSD-1B, Vega or KOALA); "
            f"{SUPPORTED}"
        )
    try:
        unet = unet_config(shapes)
        kind, vae, factor = autoencoder(shapes, XL_LATENT_SCALE)
        small = EncoderArchitecture("clip_l", TEXT_PREFIX, clip_text_config(shapes, TEXT_PREFIX, metadata))
        config = open_clip_text_config(shapes, OPEN_CLIP_PREFIX)
        large = EncoderArchitecture("clip_g", OPEN_CLIP_PREFIX, config, open_clip=True)
        pooled, told = shapes[OPEN_CLIP_PREFIX + "text_projection"][1], shapes[_LABEL][1]
    except KeyError as error:
        raise lacking(error) from None
    check_task(unet, vae, (small, large))
    if told != pooled + 6 * SIZE_WIDTH:
        raise IceError(
            f"this file's U-Net takes {told} numbers beside the text, not {pooled} of pooled text and "
            f"6 x {SIZE_WIDTH} of sizes; {SUPPORTED}"
        )
    conditioning = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": SIZE_WIDTH,
        "projection_class_embeddings_input_dim": told,
    }
    return Architecture(
        family="stable-diffusion-xl-v1-base",
        unet=unet | conditioning,
        vae_kind=kind,
        vae=vae,
        factor=factor,
        encoders=(small, large),
        prediction=prediction,
        native_size=positive(metadata, "ice.native_size", 1024),
        latent_scale=XL_LATENT_SCALE,
        zero_terminal=prediction == "v_prediction" and ZERO_TERMINAL_KEY in shapes,
    )


def load(file: WeightFile, device: torch.device, dtype: torch.dtype) -> StandaloneBackbone:
    """The model of a checkpoint. Raises IceError where `infer` does, or a weight is missing or too much."""
    try:
        details = infer(file.shapes, file.metadata)
    except IceError as error:
        raise IceError(f"{file.path.name}: {error}") from None
    small, large = details.encoders
    return StandaloneBackbone(
        read_unet(details, file, TITLE, device, dtype),
        read_vae(details, file, device, dtype),
        JointText(
            ClipText(
                small.name,
                read_text_model(small, file, device, dtype),
                layers_early=1,
                normalized=False,
                in_loras=TEXT[1],
            ),
            ClipText(
                large.name,
                read_text_model(large, file, device, dtype),
                layers_early=1,
                normalized=False,
                padding=OPEN_CLIP_PADDING,
                projection=read_projection(large, file, device, dtype),
                in_loras=TEXT[2],
            ),
        ),
        details,
        name=file.path.stem,
        fingerprint=file.fingerprint,
    )
