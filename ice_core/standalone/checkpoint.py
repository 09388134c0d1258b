"""Single-file Stable Diffusion 1 checkpoints: read, checked, and turned into a Backbone."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ice_core.errors import IceError
from ice_core.standalone.architecture import infer
from ice_core.standalone.backbone import StandaloneBackbone
from ice_core.standalone.ldm import (
    LATENT_SCALE,
    UNET_PREFIX,
    VAE_PREFIX,
    tiny_vae_names,
    unet_names,
    vae_names,
)

M = TypeVar("M", bound=nn.Module)


def load_checkpoint(
    path: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> StandaloneBackbone:
    """The model in `path`, a .safetensors file in the original layout, ready on `device` in `dtype`.

    Raises IceError for a file that is missing, damaged or holds another kind of model.
    """
    path = Path(path)
    tensors, metadata = _read(path)
    try:
        details = infer({k: tuple(v.shape) for k, v in tensors.items()}, metadata)
    except IceError as error:
        raise IceError(f"{path.name}: {error}") from None

    # Here and not above: these take many seconds, and a wrong file should be refused at once.
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    # No memory is spent on random weights that the file's own replace.
    with torch.device("meta"):
        unet = UNet2DConditionModel(**details.unet, sample_size=details.native_size // details.factor)
        vae = (
            AutoencoderTiny(**details.vae, **_tiny_scale(tensors))
            if details.vae_kind == "tiny"
            else AutoencoderKL(**details.vae, sample_size=details.native_size)
        )
        text = CLIPTextModel(CLIPTextConfig(**details.text))
    # The one buffer that no file holds; `text_model.embeddings` up to transformers 4, `embeddings` from 5 on.
    embeddings = next(module for name, module in text.named_modules() if name.endswith("embeddings"))
    embeddings.position_ids = torch.arange(details.text["max_position_embeddings"])[None]
    unet_map = unet_names(unet.state_dict(), details.unet["layers_per_block"])
    vae_map = (
        tiny_vae_names(vae.state_dict())
        if details.vae_kind == "tiny"
        else vae_names(vae.state_dict(), len(details.vae["block_out_channels"]))
    )
    text_map = {k: k.removeprefix("text_model.") for k in text.state_dict()}
    if unknown := sorted(
        k for k in tensors.keys() - {UNET_PREFIX + v for v in unet_map.values()} if k.startswith(UNET_PREFIX)
    ):
        raise IceError(
            f"{path.name}: the U-Net has {len(unknown)} weights that are no part of Stable Diffusion 1, "
            f"first {unknown[0]}; use a plain Stable Diffusion 1.x checkpoint"
        )
    fill = partial(_fill, tensors=tensors, file=path.name, device=torch.device(device), dtype=dtype)
    stat = path.stat()
    return StandaloneBackbone(
        fill(unet, {k: UNET_PREFIX + v for k, v in unet_map.items()}),
        fill(vae, {k: VAE_PREFIX + v for k, v in vae_map.items()}),
        fill(text, {k: details.text_prefix + v for k, v in text_map.items()}),
        details,
        name=path.stem,
        fingerprint=partial(_sha256, path.resolve(), stat.st_mtime_ns, stat.st_size),
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by key (mapped from the file, not yet in memory) and string metadata."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise IceError(f"there is no model file at {path}; give the path of a .safetensors checkpoint")
    if path.suffix.lower() == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise IceError(
                f"{path} cannot be read ({error}): the file is damaged or cut short; download it again"
            ) from error
    if path.suffix.lower() not in (".ckpt", ".pt", ".pth"):
        raise IceError(f"{path.name} is no checkpoint by its name; give a .safetensors file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise IceError(
            f"{path} cannot be read without running code that is in it, or is damaged; "
            f"get the same model as .safetensors"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    return {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}, {}


def _tiny_scale(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """diffusers' factors for a host's `vae_scale` and `vae_shift` (1 and 0 where the file has none)."""
    scale, shift = (
        float(tensors[VAE_PREFIX + name]) if VAE_PREFIX + name in tensors else default
        for name, default in (("vae_scale", 1.0), ("vae_shift", 0.0))
    )
    return {"scaling_factor": LATENT_SCALE / scale, "shift_factor": 0.0 - shift * scale}


def _fill(
    module: M,
    names: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    file: str,
    device: torch.device,
    dtype: torch.dtype,
) -> M:
    """`module` on `device` with the file's weights; names: module key -> key in the file."""
    expected = module.state_dict()
    if missing := sorted(name for name in names.values() if name not in tensors):
        raise IceError(
            f"{file} lacks {len(missing)} weights, first {missing[0]}: it is incomplete, or not quite "
            f"Stable Diffusion 1; download it again or use another checkpoint"
        )
    state = {}
    for key, name in names.items():
        value, shape = tensors[name], expected[key].shape
        # A 1 x 1 convolution [C, D, 1, 1] and a linear layer [C, D] hold the same numbers.
        if value.squeeze().shape != torch.Size(n for n in shape if n != 1) or value.numel() != shape.numel():
            raise IceError(f"{file}: {name} has shape {tuple(value.shape)}, expected {tuple(shape)}")
        state[key] = value.reshape(shape).to(device, dtype)
    module.load_state_dict(state, strict=True, assign=True)
    return module.to(device)


@cache
def _sha256(path: Path, mtime_ns: int, size: int) -> str:
    stat = path.stat()
    if (stat.st_mtime_ns, stat.st_size) != (mtime_ns, size):
        raise IceError(f"{path} was changed after it was loaded: load the model again")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()
