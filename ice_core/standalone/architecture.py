"""What a checkpoint is, read off the names and shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from ice_core.errors import IceError
from ice_core.standalone.ldm import LATENT_SCALE, TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX

Shapes = Mapping[str, Sequence[int]]

SUPPORTED = (
    "supported are Stable Diffusion 1.x text-to-image checkpoints in one .safetensors file, with U-Net, "
    "text encoder and VAE"
)
VOCABULARY = 49408
_OLD_TEXT_PREFIX = "cond_stage_model.transformer."
_FOREIGN = (
    (r"lora_(up|down|A|B)\b|\.hada_|\.lokr_", "a LoRA"),
    (r"^(emb_params|string_to_param|string_to_token|clip_[lgh]|<.+>)$", "a textual-inversion embedding"),
    (r"^control_model\.|^controlnet_", "a ControlNet"),
    (r"^conditioner\.embedders\.|diffusion_model\.label_emb\.", "a Stable Diffusion XL checkpoint"),
    (r"(^|\.)double_blocks\.\d", "a Flux model"),
    (r"(^|\.)joint_blocks\.\d", "a Stable Diffusion 3 model"),
    (r"^cond_stage_model\.model\.", "a Stable Diffusion 2.x checkpoint"),
    (r"^(unet\.)?(down_blocks|up_blocks)\.\d", "a U-Net in diffusers' layout"),
)
_TASKS = {8: "an instruction-editing (8-channel)", 9: "an inpainting (9-channel)"}


@dataclass(frozen=True)
class Architecture:
    """Keyword arguments for UNet2DConditionModel, the autoencoder and CLIPTextConfig, and facts around them.

    vae_kind: "kl" for AutoencoderKL, "tiny" for AutoencoderTiny; factor: pixels per latent cell, per side;
    text_prefix: where the text encoder's keys start in the file; native_size: side in pixels.
    """

    unet: Mapping[str, Any]
    vae_kind: Literal["kl", "tiny"]
    vae: Mapping[str, Any]
    factor: int
    text: Mapping[str, Any]
    text_prefix: str
    prediction: Literal["epsilon", "v_prediction"]
    native_size: int

    @property
    def multiple(self) -> int:
        """Picture sides must be multiples of this many pixels: a whole cell on the U-Net's coarsest level."""
        return int(self.factor * 2 ** (len(self.unet["block_out_channels"]) - 1))


def infer(shapes: Shapes, metadata: Mapping[str, str]) -> Architecture:
    """The architecture of a checkpoint in the original layout.

    Head counts do not show in shapes: 8 in the U-Net and width / 64 in the text encoder as in Stable
    Diffusion 1, unless the metadata's `ice.unet_heads` and `ice.text_heads` say otherwise; `ice.prediction`
    ("epsilon") and `ice.native_size` (512) likewise. Raises IceError for any other kind of file.
    """
    if found := _foreign(shapes):
        raise IceError(f"this file is {found}; {SUPPORTED}")
    text_prefix = TEXT_PREFIX if any(k.startswith(TEXT_PREFIX) for k in shapes) else _OLD_TEXT_PREFIX
    parts = {"U-Net": UNET_PREFIX, "VAE": VAE_PREFIX, "text encoder": text_prefix}
    absent = [part for part, prefix in parts.items() if not any(k.startswith(prefix) for k in shapes)]
    if absent:
        raise IceError(f"this file has no {' and no '.join(absent)}; {SUPPORTED}")
    prediction = metadata.get("ice.prediction", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise IceError(f"the metadata says ice.prediction={prediction!r}; it must be epsilon or v_prediction")
    try:
        unet = _unet(shapes, _whole(metadata, "ice.unet_heads", 8))
        tiny = VAE_PREFIX + "taesd_decoder.1.weight" in shapes
        vae, text = _tiny_vae(shapes) if tiny else _vae(shapes), _text(shapes, text_prefix, metadata)
    except KeyError as error:
        raise IceError(
            f"this file lacks the weight {error.args[0]}, so it is cut short or of another kind; {SUPPORTED}"
        ) from None
    if unet["cross_attention_dim"] != text["hidden_size"]:
        what = "a Stable Diffusion 2.x U-Net" if unet["cross_attention_dim"] == 1024 else "a mixed checkpoint"
        raise IceError(
            f"this file is {what}: the U-Net takes text {unet['cross_attention_dim']} wide, the text "
            f"encoder gives {text['hidden_size']}; {SUPPORTED}"
        )
    if vae["latent_channels"] != unet["in_channels"]:
        task = _TASKS.get(unet["in_channels"], f"a {unet['in_channels']}-channel")
        raise IceError(f"this file is {task} model; {SUPPORTED}")
    return Architecture(
        unet=unet,
        vae_kind="tiny" if tiny else "kl",
        vae=vae,
        factor=8 if tiny else 2 ** (len(vae["block_out_channels"]) - 1),
        text=text,
        text_prefix=text_prefix,
        prediction=cast(Literal["epsilon", "v_prediction"], prediction),
        native_size=_whole(metadata, "ice.native_size", 512),
    )


def _foreign(shapes: Shapes) -> str | None:
    context = shapes.get(UNET_PREFIX + "middle_block.1.transformer_blocks.0.attn2.to_k.weight", (0, 0))[1]
    if context == 1024:
        return "a Stable Diffusion 2.x checkpoint (text context 1024 wide)"
    for pattern, what in _FOREIGN:
        for key in shapes:
            if re.search(pattern, key):
                return f"{what} (it has {key})"
    return None


def _whole(metadata: Mapping[str, str], key: str, default: int) -> int:
    value = metadata.get(key, str(default))
    if not value.isdecimal() or int(value) < 1:
        raise IceError(f"the metadata says {key}={value!r}; it must be a whole number above 0")
    return int(value)


def _count(shapes: Shapes, pattern: str) -> int:
    """How many numbers the group of `pattern` takes in keys that begin with it."""
    found = re.compile(pattern)
    return len({m[1] for key in shapes if (m := found.match(key))})


def _unet(shapes: Shapes, heads: int) -> dict[str, Any]:
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
    if odd := [c for c, d in zip(channels, depths, strict=True) if d and c % heads]:
        raise IceError(
            f"this file's U-Net is {odd[0]} channels wide, which {heads} attention heads do not divide; "
            f"the metadata must give the number of heads as ice.unet_heads"
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
        "attention_head_dim": heads,
    }


def _vae(shapes: Shapes) -> dict[str, Any]:
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
        "scaling_factor": LATENT_SCALE,
    }


def _tiny_vae(shapes: Shapes) -> dict[str, Any]:
    """TAESD comes in one size; hosts know no other."""
    return {"latent_channels": shapes[VAE_PREFIX + "taesd_decoder.1.weight"][1]}


def _text(shapes: Shapes, prefix: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    vocabulary, width = shapes[prefix + "embeddings.token_embedding.weight"]
    if vocabulary < VOCABULARY:
        raise IceError(f"this file's text encoder knows {vocabulary} tokens, not {VOCABULARY}; {SUPPORTED}")
    heads = _whole(metadata, "ice.text_heads", max(width // 64, 1))
    if width % heads:
        raise IceError(f"the metadata says ice.text_heads={heads}, which does not divide the width {width}")
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes[prefix + "encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, re.escape(prefix) + r"encoder\.layers\.(\d+)\."),
        "num_attention_heads": heads,
        "max_position_embeddings": shapes[prefix + "embeddings.position_embedding.weight"][0],
        "hidden_act": "quick_gelu",
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }
