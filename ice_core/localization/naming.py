"""A word for an object alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor

from ice_core.concepts import Candidate

_MARGIN = 1 / 128
NAMELESS = "object"
"""What a found object is called that no word was found for."""


class Retrieves(Protocol):
    """Names what is in a picture."""

    def retrieve(self, image: Tensor, used: Sequence[str] = ()) -> Sequence[Any]:
        """Candidates for an image [3, H, W], best first, each with a `.label`; none like a used one."""


def alone(image: Tensor, mask: Tensor) -> Tensor:
    """An object of an image [3, H, W] on black, with a little of what is around its mask [H, W] bool: a
    mask that is tight hides the outline, by which things are known."""
    margin = max(1, round(_MARGIN * min(mask.shape)))
    wide = F.max_pool2d(mask[None].float(), 2 * margin + 1, 1, margin)[0] > 0
    return image * wide


def named(candidates: Sequence[Any]) -> tuple[str, tuple[Candidate, ...]]:
    """The name that a retriever's candidates give, and finer ones."""
    if not candidates:
        return NAMELESS, ()
    return candidates[0].label, getattr(candidates[0], "finer", ())
