"""What a model's parts are, read off the names and shapes of weights in the original ("LDM") layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ice_core.errors import IceError
from ice_core.standalone.kinds import SUPPORTED, Shapes
from ice_core.standalone.ldm import LATENT_SCALE, UNET_PREFIX, VAE_PREFIX

VOCABULARY = 49408
"""Tokens that CLIP's tokenizer makes."""
_HEAD_WIDTH = 64
"""Channels of a head, where a model has as many heads as fit."""
_TASKS = {
    5: "a depth-to-image (5-channel)",
    7: "an upscaling (7-channel)",
    8: "an instruction-editing (8-channel)",
    9: "an inpainting (9-channel)",
}

Prediction = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class EncoderArchitecture:
    """A CLIP text encoder of a file. name: as in files of learned tokens ("clip_l"); prefix: where its keys
    start; config: arguments for CLIPTextConfig; open_clip: whether its keys are open_clip's."""

    name: str
    prefix: str
    config: Mapping[str, Any]
    open_clip: bool = False


_MOST = 32
"""Blocks or layers of one kind: the largest CLIP has 32."""
_MOST_TRANSFORMERS = 100
"""On the way down of a U-Net: that of SDXL has 24."""


@dataclass(frozen=True)
class Architecture:
    """Keyword arguments for UNet2DConditionModel, the autoencoder and CLIPTextConfig, and facts around them.

    family: the model-spec name ("stable-diffusion-v1"); vae_kind: "kl" for AutoencoderKL, "tiny" for
    AutoencoderTiny; factor: pixels per latent cell, per side; encoders: in the order in which their hidden
    states lie side by side; native_size: side in pixels; latent_scale: what raw latents are multiplied by;
    zero_terminal: whether nothing of the picture is left at the last timestep.
    """

    family: str
    unet: Mapping[str, Any]
    vae_kind: Literal["kl", "tiny"]
    vae: Mapping[str, Any]
    factor: int
    encoders: tuple[EncoderArchitecture, ...]
    prediction: Prediction
    native_size: int
    latent_scale: float = LATENT_SCALE
    zero_terminal: bool = False

    @property
    def multiple(self) -> int:
        """Picture sides must be multiples of this many pixels: a whole cell on the U-Net's coarsest level."""
        return int(self.factor * 2 ** (len(self.unet["block_out_channels"]) - 1))


def positive(metadata: Mapping[str, str], key: str, default: int) -> int:
    """A whole number above 0 of a file's metadata. Raises IceError for anything else."""
    value = metadata.get(key, str(default))
    if not value.isdecimal() or int(value) < 1:
        raise IceError(f"the metadata says {key}={value!r}; it must be a whole number above 0")
    return int(value)


def said_prediction(metadata: Mapping[str, str], default: Prediction) -> Prediction:
    """What a file says that it predicts, as `ice.prediction` or in its model spec; else the default.

    Raises IceError for anything but noise and velocity.
    """
    key = "ice.prediction" if "ice.prediction" in metadata else "modelspec.prediction_type"
    match value := metadata.get(key, default):
        case "epsilon":
            return "epsilon"
        case "v_prediction" | "v":
            return "v_prediction"
    raise IceError(f"the metadata says {key}={value!r}; it must be epsilon or v_prediction")


def check_parts(shapes: Shapes, text_prefixes: Mapping[str, str]) -> None:
    """Raise IceError where a file lacks U-Net, VAE or a text encoder; text_prefixes: by name for people."""
    parts = {"U-Net": UNET_PREFIX, "VAE": VAE_PREFIX, **text_prefixes}
    absent = [part for part, prefix in parts.items() if not any(k.startswith(prefix) for k in shapes)]
    if absent:
        raise IceError(f"this file has no {' and no '.join(absent)}; {SUPPORTED}")


def check_task(
    unet: Mapping[str, Any], vae: Mapping[str, Any], encoders: tuple[EncoderArchitecture, ...]
) -> None:
    """Raise IceError for parts of different models, and for a U-Net that takes more than a picture."""
    width = sum(encoder.config["hidden_size"] for encoder in encoders)
    if unet["cross_attention_dim"] != width:
        raise IceError(
            f"this file is a mixed checkpoint: the U-Net takes text {unet['cross_attention_dim']} wide, the "
            f"text encoder gives {width}; {SUPPORTED}"
        )
    if vae["latent_channels"] != unet["in_channels"]:
        task = _TASKS.get(unet["in_channels"], f"a {unet['in_channels']}-channel")
        raise IceError(f"this file is {task} model; {SUPPORTED}")


def lacking(error: KeyError) -> IceError:
    """What to raise where a weight that tells a size is missing."""
    return IceError(
        f"this file lacks the weight {error.args[0]}, so it is cut short or of another kind; {SUPPORTED}"
    )


def _count(shapes: Shapes, pattern: str) -> int:
    """How many numbers the group of `pattern` takes in keys that begin with it."""
    found = re.compile(pattern)
    count = len({m[1] for key in shapes if (m := found.match(key))})
    if count > _MOST:
        raise IceError(
            f"this file names {count} blocks or layers where a model has {_MOST} at most; {SUPPORTED}"
        )
    return count


def unet_config(shapes: Shapes, heads: int | None = None) -> dict[str, Any]:
    """Arguments for UNet2DConditionModel; head counts do not show in shapes: `heads` at every width, by
    default one per 64 channels.

    Raises IceError for a U-Net of another build, KeyError where a weight that tells a size is missing; so
    do the functions below.
    """
    blocks = re.escape(UNET_PREFIX)
    channels: list[int] = [0]
    layers: list[int] = [0]
    depths: list[int] = [0]
    for i in range(1, _count(shapes, blocks + r"input_blocks\.(\d+)\.")):
        block = f"{UNET_PREFIX}input_blocks.{i}"
        if f"{block}.0.op.weight" in shapes:
            channels.append(0)
            layers.append(0)
            depths.append(0)
        else:
            channels[-1] = shapes[f"{block}.0.in_layers.2.weight"][0]
            layers[-1] += 1
            depths[-1] = _count(shapes, re.escape(block) + r"\.1\.transformer_blocks\.(\d+)\.")
    if len(set(layers)) > 1:
        raise IceError(
            f"this file's U-Net has {layers} residual blocks per level, not one number; {SUPPORTED}"
        )
    divisor = heads or _HEAD_WIDTH
    if odd := [c for c, d in zip(channels, depths, strict=True) if d and c % divisor]:
        what = f"{heads} attention heads" if heads else f"attention heads of {divisor} channels"
        remedy = "the metadata must give the number of heads as ice.unet_heads" if heads else SUPPORTED
        raise IceError(f"this file's U-Net is {odd[0]} channels wide, which {what} do not divide; {remedy}")
    if (transformers := layers[0] * sum(depths)) > _MOST_TRANSFORMERS:
        raise IceError(
            f"this file's U-Net names {transformers} transformers, more than any model has; {SUPPORTED}"
        )
    middle = _count(shapes, blocks + r"middle_block\.1\.transformer_blocks\.(\d+)\.")
    conv_in, conv_out = shapes[UNET_PREFIX + "input_blocks.0.0.weight"], shapes[UNET_PREFIX + "out.2.weight"]
    first = UNET_PREFIX + "middle_block.1"
    return {
        "in_channels": conv_in[1],
        "out_channels": conv_out[0],
        "block_out_channels": tuple(channels),
        "layers_per_block": layers[0],
        "down_block_types": tuple("CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depths),
        "up_block_types": tuple("CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(depths)),
        # A level without transformers ignores its depth; diffusers takes the middle's from the last one.
        "transformer_layers_per_block": tuple(d or middle for d in depths),
        "cross_attention_dim": shapes[f"{first}.transformer_blocks.0.attn2.to_k.weight"][1],
        "use_linear_projection": len(shapes[f"{first}.proj_in.weight"]) == 2,
        # diffusers' name for the number of heads in models of this generation.
        "attention_head_dim": heads or tuple(max(c // divisor, 1) for c in channels),
    }


def autoencoder(shapes: Shapes, scale: float) -> tuple[Literal["kl", "tiny"], dict[str, Any], int]:
    """Kind of the autoencoder, its arguments, and pixels per latent cell; scale: of raw latents."""
    if VAE_PREFIX + "taesd_decoder.1.weight" in shapes:
        return "tiny", tiny_vae_config(shapes), 8
    config = vae_config(shapes, scale)
    return "kl", config, 2 ** (len(config["block_out_channels"]) - 1)


def vae_config(shapes: Shapes, scale: float) -> dict[str, Any]:
    """Arguments for AutoencoderKL."""
    down = VAE_PREFIX + "encoder.down."
    levels = _count(shapes, re.escape(down) + r"(\d+)\.block\.")
    return {
        "in_channels": shapes[VAE_PREFIX + "encoder.conv_in.weight"][1],
        "out_channels": shapes[VAE_PREFIX + "decoder.conv_out.weight"][0],
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": tuple(shapes[f"{down}{i}.block.0.conv2.weight"][0] for i in range(levels)),
        "layers_per_block": _count(shapes, re.escape(down) + r"0\.block\.(\d+)\."),
        "latent_channels": shapes[VAE_PREFIX + "decoder.conv_in.weight"][1],
        "scaling_factor": scale,
    }


def tiny_vae_config(shapes: Shapes) -> dict[str, Any]:
    """Arguments for AutoencoderTiny (TAESD), which comes in one size; hosts know no other."""
    return {"latent_channels": shapes[VAE_PREFIX + "taesd_decoder.1.weight"][1]}


def clip_text_config(shapes: Shapes, prefix: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Arguments for CLIPTextConfig of the encoder whose keys start with `prefix`.

    It has width / 64 heads as all published CLIP models, unless the metadata's `ice.text_heads` says
    otherwise.
    """
    vocabulary, width = shapes[prefix + "embeddings.token_embedding.weight"]
    heads = positive(metadata, "ice.text_heads", max(width // _HEAD_WIDTH, 1))
    if width % heads:
        raise IceError(f"the metadata says ice.text_heads={heads}, which does not divide the width {width}")
    return {
        **_text_sizes(vocabulary, width, shapes[prefix + "embeddings.position_embedding.weight"][0]),
        "intermediate_size": shapes[prefix + "encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, re.escape(prefix) + r"encoder\.layers\.(\d+)\."),
        "num_attention_heads": heads,
        "hidden_act": "quick_gelu",
    }


def open_clip_text_config(shapes: Shapes, prefix: str) -> dict[str, Any]:
    """Arguments for CLIPTextConfig of an encoder under open_clip's names, with heads of 64 channels.

    Those that text-to-image models have are of LAION, who trained with the exact GELU.
    """
    vocabulary, width = shapes[prefix + "token_embedding.weight"]
    return {
        **_text_sizes(vocabulary, width, shapes[prefix + "positional_embedding"][0]),
        "intermediate_size": shapes[prefix + "transformer.resblocks.0.mlp.c_fc.weight"][0],
        "num_hidden_layers": _count(shapes, re.escape(prefix) + r"transformer\.resblocks\.(\d+)\."),
        "num_attention_heads": max(width // _HEAD_WIDTH, 1),
        "hidden_act": "gelu",
    }


def _text_sizes(vocabulary: int, width: int, positions: int) -> dict[str, Any]:
    if vocabulary < VOCABULARY:
        raise IceError(f"this file's text encoder knows {vocabulary} tokens, not {VOCABULARY}; {SUPPORTED}")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "max_position_embeddings": positions,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }
