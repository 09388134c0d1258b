"""Single-file checkpoints: read, recognised, and turned into a Backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch

from ice_core.errors import IceError
from ice_core.standalone import stable_diffusion_1, stable_diffusion_2, stable_diffusion_xl
from ice_core.standalone.backbone import StandaloneBackbone
from ice_core.standalone.kinds import SUPPORTED, Shapes, foreign
from ice_core.standalone.weight_file import WeightFile, open_weights


class Family(Protocol):
    """A module of this package that loads the checkpoints of one model family."""

    def recognises(self, shapes: Shapes) -> bool:
        """Whether the weights are this family's, as far as their names tell."""

    def load(self, file: WeightFile, device: torch.device, dtype: torch.dtype) -> StandaloneBackbone:
        """The model of a recognised file. Raises IceError where it is not quite what its names promise."""


FAMILIES: tuple[Family, ...] = (stable_diffusion_xl, stable_diffusion_2, stable_diffusion_1)
"""In the order in which they are asked: the first one takes what has its marks, the last one the rest."""


def load_checkpoint(
    path: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> StandaloneBackbone:
    """The model in `path`, a .safetensors file in the original layout, ready on `device` in `dtype`.

    Raises IceError for a file that is missing, damaged or holds another kind of model.
    """
    file = open_weights(path)
    try:
        what = foreign(file.shapes)
        for family in FAMILIES if what is None else ():
            if family.recognises(file.shapes):
                return family.load(file, torch.device(device), dtype)
    except IceError:
        raise
    # A weight of other dimensions than its name promises, or of a size that nothing can be built from.
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, AssertionError) as error:
        raise IceError(
            f"{file.path.name}: its weights are of shapes that do not belong together ({error!r}); it is "
            f"damaged, download it again"
        ) from error
    raise IceError(f"{file.path.name}: this file is {what or 'no checkpoint of a known kind'}; {SUPPORTED}")
