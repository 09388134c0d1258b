"""The shipped weights as a start: where no training state is left, what was trained goes on from them."""

from __future__ import annotations

from dataclasses import dataclass

from safetensors.torch import load_file
from torch import Tensor

from ice_core.world.bundled import load_bundled_backbone, load_bundled_towers
from world.judging import WEIGHTS as JUDGE


@dataclass(frozen=True)
class Shipped:
    """State dicts of diffusers' autoencoder and U-Net, of open_clip's CLIP and of the judge; None: from
    nothing."""

    vae: dict[str, Tensor] | None = None
    clip: dict[str, Tensor] | None = None
    unet: dict[str, Tensor] | None = None
    judge: dict[str, Tensor] | None = None


def shipped() -> Shipped:
    backbone = load_bundled_backbone()
    towers = load_bundled_towers(backbone)
    return Shipped(
        backbone.vae.state_dict(), towers.model.state_dict(), backbone.unet.state_dict(), load_file(JUDGE)
    )
