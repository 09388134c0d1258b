"""The shipped weights as a start: where no training state is left, what was trained goes on from them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ice_core.world.bundled import load_bundled_backbone, load_bundled_towers


@dataclass(frozen=True)
class Shipped:
    """State dicts of diffusers' autoencoder and U-Net and of open_clip's CLIP; None: from nothing."""

    vae: dict[str, Tensor] | None = None
    clip: dict[str, Tensor] | None = None
    unet: dict[str, Tensor] | None = None


def shipped() -> Shipped:
    backbone = load_bundled_backbone()
    towers = load_bundled_towers(backbone)
    return Shipped(backbone.vae.state_dict(), towers.model.state_dict(), backbone.unet.state_dict())
