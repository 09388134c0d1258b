"""Wires of the host turned into values of the core and back, progress, and Cancel.

The host is imported by what needs it, so that the conversions can be tested without one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ice_core.concepts import Concept, ConceptSet
from ice_core.errors import IceError
from ice_core.files.images import MIN_SIDE, resize, resize_mask
from ice_core.model.backbone import Backbone

if TYPE_CHECKING:
    from PIL import Image

_PREVIEW_SIDE = 768
_SAME_PICTURE = 0.02
"""Mean difference of pixels in 0..1: compression and resizing stay below, no two pictures do."""


def pictures_of(image: Tensor) -> list[Tensor]:
    """IMAGE [B, H, W, C] -> the pictures of the batch, each as `picture_of` has it."""
    return [picture_of(one) for one in image.split(1)]


def picture_of(image: Tensor) -> Tensor:
    """IMAGE [1, H, W, C] -> picture [3, H, W] in 0..1, float32, CPU; transparency is laid over white.

    Raises IceError for a batch of several, a side under 32 pixels, and values that are not numbers.
    """
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise IceError(f"an image of shape {list(image.shape)}; [1, height, width, 3] is needed")
    if len(image) != 1:
        raise IceError(
            f"the image is a batch of {len(image)}: choose one with ImageFromBatch, or take one after the "
            "other with RebatchImages, batch_size 1"
        )
    values = image[0].detach().float().cpu().movedim(-1, 0)
    height, width = values.shape[-2:]
    if min(height, width) < MIN_SIDE:
        raise IceError(f"the image is {width} x {height} pixels; each side must have at least {MIN_SIDE}")
    if not values.isfinite().all():
        raise IceError("the image holds values that are not numbers (NaN or infinite): make it again")
    values = values.clamp(0, 1)
    if len(values) == 4:
        values = values[:3] * values[3:] + (1 - values[3:])
    return values.expand(3, -1, -1).contiguous()


def preview(images: Sequence[Tensor], cls: Any) -> Any:
    """What the page shows of pictures [1, H, W, 3] of any sizes on the node `cls`."""
    from comfy_api.latest import ui

    first, *others = (ui.PreviewImage(image, cls=cls) for image in images)
    for one in others:
        first.values = [*first.values, *one.values]
    return first


def at(values: Sequence[Any], index: int) -> Any:
    """What a list of an input says of one of several pictures: the last one counts for all that follow."""
    return values[min(index, len(values) - 1)]


def image_of(picture: Image.Image) -> Tensor:
    """A PIL picture -> IMAGE [1, H, W, 3]."""
    return torch.from_numpy(np.array(picture.convert("RGB"), dtype=np.float32) / 255)[None]


def masks_in(mask: Tensor) -> list[Tensor]:
    """MASK [B, H, W] or [H, W] -> one mask [H, W] each."""
    return list(mask[None] if mask.ndim == 2 else mask)


def masks_of(concepts: Sequence[Concept], size: tuple[int, int]) -> Tensor:
    """MASK [B, *size], one per concept."""
    return torch.stack([resize_mask(concept.mask, size).float() for concept in concepts])


def refit(concepts: ConceptSet, picture: Tensor, size: tuple[int, int]) -> ConceptSet:
    """The concepts at the (height, width) that a model works at; picture: [3, H, W], the one they are of.

    Raises IceError where the picture is another one than they were found in.
    """
    found, given = concepts.image.shape[-2:], picture.shape[-2:]
    # Working sizes are rounded to the model's multiples: an eighth is more than that, and less than a crop.
    if not 7 / 8 < (found[0] * given[1]) / (found[1] * given[0]) < 8 / 7:
        raise IceError(
            f"the image is {given[1]} x {given[0]}, but the concepts were found in one of the shape of "
            f"{found[1]} x {found[0]}: connect the image that they were found in"
        )
    difference = (resize(picture, (found[0], found[1])) - concepts.image.cpu()).abs().mean().item()
    if difference > _SAME_PICTURE:
        raise IceError(
            f"the image is another one than the concepts were found in (pixels differ by {difference:.0%} "
            "on average): connect the same image to the segmentor and here"
        )
    if tuple(found) == tuple(size):
        return concepts
    resized = tuple(Concept(c.key, c.label, resize_mask(c.mask, size), c.score) for c in concepts.concepts)
    return ConceptSet(resize(picture, size), resized, resize_mask(concepts.background, size))


def words_in(text: str) -> list[str]:
    """Words or phrases, one per line or with commas between; empty ones are dropped."""
    return [word for piece in re.split(r"[,\n]", text) if (word := " ".join(piece.split()))]


def check_cancel() -> None:
    """Raise the host's InterruptProcessingException when the user asked to cancel."""
    import comfy.model_management

    comfy.model_management.throw_exception_if_processing_interrupted()


class Progress:
    """A node's progress bar with a live picture. Telling it is also where Cancel takes effect."""

    def __init__(self, total: int) -> None:
        import comfy.utils

        self.total = max(1, total)
        self.bar = comfy.utils.ProgressBar(self.total)

    def __call__(self, done: int, picture: Image.Image | None = None) -> None:
        check_cancel()
        preview = ("JPEG", picture, _PREVIEW_SIDE) if picture is not None else None
        self.bar.update_absolute(done, self.total, preview)

    def result(self, picture: Image.Image) -> None:
        """The last picture, at its full size: the page goes on showing it in the place of the node's own."""
        check_cancel()
        self.bar.update_absolute(self.total, self.total, ("JPEG", picture.convert("RGB"), None))


def say(text: str) -> None:
    """Write a line on the node that is being executed; it stays there until the node runs again."""
    from comfy_execution.utils import get_executing_context
    from server import PromptServer

    server, context = getattr(PromptServer, "instance", None), get_executing_context()
    if server is not None and context is not None:
        server.send_progress_text(text, context.node_id, server.client_id)


class Cancellable:
    """A Backbone that looks for Cancel before every pass of its denoiser."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def predict(self, *args: Any, **kwargs: Any) -> Tensor:
        check_cancel()
        return self._backbone.predict(*args, **kwargs)
