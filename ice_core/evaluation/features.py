"""Image encoders whose embeddings are compared: CLIP by open_clip, DINOv2 and others by timm."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ice_core.concepts import unit
from ice_core.errors import IceError
from ice_core.localization.retrieval.towers import open_towers

CLIP = "ViT-L-14-quickgelu/openai"
DINO = "vit_base_patch14_dinov2.lvd142m"


class ImageFeatures(Protocol):
    """What the measures need of an image encoder."""

    @property
    def name(self) -> str:
        """For people and for tables."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in 0..1, of any size -> unit embeddings [B, D], float32, CPU."""


class TimmFeatures:
    """A timm image model without its classifier. mean, std: per color channel, of what it was trained on;
    size: (height, width) that pictures are squeezed into."""

    def __init__(
        self,
        model: nn.Module,
        name: str,
        mean: Sequence[float],
        std: Sequence[float],
        size: tuple[int, int],
        device: torch.device | str = "cpu",
    ) -> None:
        self.name, self.size = name, size
        self.device = torch.device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.mean = torch.tensor(mean, device=self.device).view(3, 1, 1)
        self.std = torch.tensor(std, device=self.device).view(3, 1, 1)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in 0..1 -> unit embeddings [B, D], float32, CPU."""
        x = images.to(self.device, torch.float32)
        if tuple(x.shape[-2:]) != self.size:
            x = F.interpolate(x, self.size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        return unit(self.model((x - self.mean) / self.std)).cpu()


def load_timm(name: str = DINO, file: Path | None = None, device: torch.device | str = "cpu") -> TimmFeatures:
    """Open a timm model by its name, with weights from a file, or from timm's own source on first use.

    Size, mean and standard deviation are those of timm's configuration of the model. Raises IceError for an
    unknown name, a file that is missing or does not fit, and when a download fails.
    """
    import timm
    from timm.data import resolve_model_data_config

    if not timm.is_model(name.partition(".")[0]):
        near = ", ".join(get_close_matches(name, timm.list_models(), 4, 0.3)) or DINO
        raise IceError(f"timm knows no model {name!r}; near names: {near}")
    if file is not None and file.suffix != ".safetensors":
        raise IceError(f"{file} is not a .safetensors file; other formats can run code and are not read")
    if file is not None and not os.path.isfile(file):
        raise IceError(f"there is no file {file}; give the weights of {name} in safetensors")
    overlay = None if file is None else {"file": str(file)}
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay)
    # Whatever a hub or a state dict raises: connection, missing keys, sizes, a damaged file.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        where = f"do not fit in {file}" if file is not None else "cannot be downloaded"
        raise IceError(f"the weights of {name} {where}: {reason}; give them as dino:{name}=FILE") from error
    config = resolve_model_data_config(model)
    height, width = config["input_size"][1:]
    return TimmFeatures(model, name, config["mean"], config["std"], (height, width), device)


def load_features(text: str, device: torch.device | str = "cpu") -> ImageFeatures:
    """The encoder that a text names.

    "clip" or "clip:NAME/WEIGHTS" or "clip:NAME=FILE" (open_clip); "dino" or "dino:NAME" or
    "dino:NAME=FILE" (timm). Raises IceError for any other text and for what cannot be opened.
    """
    kind, _, which = text.partition(":")
    if kind == "clip":
        return open_towers(which or CLIP, device)
    if kind == "dino":
        name, _, file = (which or DINO).partition("=")
        return load_timm(name or DINO, Path(file).expanduser() if file else None, device)
    raise IceError(f"unknown features {text!r}; write clip:NAME=FILE, clip:NAME/WEIGHTS or dino:NAME=FILE")
