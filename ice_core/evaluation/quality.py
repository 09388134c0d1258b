"""How a property came out on another object: a CLIP names what generated pictures show of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ice_core.localization.retrieval.towers import ImageTextModel

Grade = Literal["well", "weak", "not"]

PICTURES = 4
"""Pictures that a property is judged by: few, since every one is drawn for it."""
WELL, WEAK = 0.75, 0.5
"""Least shares of pictures that show the property, for what came out well, and weakly."""
_TEMPLATE = "a photo of a {value} {thing}"


@dataclass(frozen=True)
class Quality:
    """How one property came out on another thing.

    value: the word that was read of the object, which its pictures should show; thing: what they show it on.
    share: of pictures, in 0..1, of which a CLIP finds the value more likely than any other of the axis.
    margin: mean cosine with the value's text minus that with the best other value's.
    """

    axis: str
    value: str
    thing: str
    share: float
    margin: float
    grade: Grade


def grade_of(share: float) -> Grade:
    """What is said of a share of pictures that show the property."""
    return "well" if share >= WELL else "weak" if share >= WEAK else "not"


def quality(
    model: ImageTextModel, pictures: Tensor, axis: str, value: str, thing: str, values: Sequence[str]
) -> Quality | None:
    """Judge pictures [B, 3, H, W] in 0..1 of a property on a thing.

    values: words of the axis, `value` may be one of them. None where there is no other value that it could
    be mistaken for.
    """
    words = tuple(dict.fromkeys((value, *values)))
    if len(words) < 2:
        return None
    texts = model.encode_texts([_TEMPLATE.format(value=word, thing=thing) for word in words])
    cosines = model.encode_images(pictures) @ texts.T
    margins = cosines[:, 0] - cosines[:, 1:].amax(1)
    share = (margins > 0).float().mean().item()
    return Quality(axis, value, thing, share, margins.mean().item(), grade_of(share))
