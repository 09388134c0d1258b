"""The picture that was taken apart: what was found in it, and each object alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from ice_core.concepts import Concept
from ice_core.figures.lettering import font, shorten
from ice_core.figures.plots import COLORS
from ice_core.files.images import to_pil

_OVERLAY_SIDE = 384


def color_of(index: int) -> tuple[int, int, int]:
    """The colour of the concept at a place in the list."""
    return COLORS[index % len(COLORS)]


def overlay(image: Tensor, concepts: Sequence[Concept], box: tuple[int, int] | None = None) -> Image.Image:
    """The picture [3, H, W] with each mask tinted and outlined, and its key and score on a tag.

    Masks [h, w] may be of another size. Without `box` the size stays, but small pictures are enlarged to a
    shorter side of 384; with it the result is as large as fits into (width, height).
    """
    height, width = image.shape[-2:]
    scale = max(1.0, _OVERLAY_SIDE / min(height, width))
    if box:
        scale = min(box[0] / width, box[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = to_pil(image).resize(size, Image.Resampling.LANCZOS)
    stroke = max(2, round(min(size) / 190))
    for i, concept in enumerate(concepts):
        mask = _smooth_mask(concept.mask, size)
        edge = mask & ~_erode(mask, stroke)
        canvas.paste(Image.blend(canvas, Image.new("RGB", size, color_of(i)), 0.30), mask=to_pil(mask))
        canvas.paste(color_of(i), (0, 0), to_pil(edge))
    _draw_tags(canvas, concepts)
    return canvas


def _smooth_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """[h, w] bool -> bool of size (width, height), without the staircase of enlarged pixels."""
    soft = mask[None, None].float()
    if min(size[0] / mask.shape[1], size[1] / mask.shape[0]) > 1.5:
        soft = F.avg_pool2d(F.pad(soft, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return F.interpolate(soft, size[::-1], mode="bicubic", antialias=True)[0, 0] > 0.5


def _erode(mask: Tensor, radius: int) -> Tensor:
    outside = F.pad(1 - mask[None].float(), (radius,) * 4, value=1.0)
    return F.max_pool2d(outside, 2 * radius + 1, stride=1)[0] < 0.5


def _draw_tags(canvas: Image.Image, concepts: Sequence[Concept]) -> None:
    """Tags stand above their object where there is room, and never on one another."""
    draw = ImageDraw.Draw(canvas)
    width, height = canvas.size
    size = max(13, round(min(width, height) / 24))
    pad = round(size * 0.4)
    taken: list[tuple[int, int, int, int]] = []
    for i, concept in enumerate(concepts):
        text = shorten(f"{concept.key}  {concept.score:.0%}", font(size, True), width - 4 * pad)
        tag = round(font(size, True).getlength(text)) + 2 * pad, round(size * 1.2) + pad
        left, top, right, bottom = _scaled_box(concept, canvas.size)
        center = (left + right - tag[0]) // 2
        places = [
            (center, top - tag[1] - 3),
            (center, bottom + 3),
            (center, (top + bottom - tag[1]) // 2),
            *((center, y) for y in range(2, height - tag[1], tag[1] + 2)),
        ]
        boxes = []
        for x, y in places:
            if 0 <= y <= height - tag[1]:
                x = min(max(2, x), max(2, width - tag[0] - 2))
                boxes.append((x, y, x + tag[0], y + tag[1]))
        free = [b for b in boxes if not any(_overlaps(b, other) for other in taken)]
        chosen = (free or boxes or [(2, 2, 2 + tag[0], 2 + tag[1])])[0]
        taken.append(chosen)
        draw.rounded_rectangle(chosen, radius=size // 3, fill=color_of(i), outline=(255, 255, 255))
        middle = ((chosen[0] + chosen[2]) / 2, (chosen[1] + chosen[3]) / 2)
        draw.text(middle, text, fill=(255, 255, 255), font=font(size, True), anchor="mm")


def _scaled_box(concept: Concept, size: tuple[int, int]) -> tuple[int, int, int, int]:
    height, width = concept.mask.shape
    x, y = size[0] / width, size[1] / height
    left, top, right, bottom = concept.box
    return round(left * x), round(top * y), round(right * x), round(bottom * y)


def _overlaps(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def masked_crop(image: Tensor, concept: Concept, margin: float = 0.08) -> Image.Image:
    """The object alone on white, square, with a margin as a share of its longer side."""
    height, width = image.shape[-2:]
    mask = _smooth_mask(concept.mask, (width, height))
    cut = torch.where(mask.to(image.device), image, torch.ones_like(image))
    left, top, right, bottom = _scaled_box(concept, (width, height))
    side = max(1, right - left, bottom - top)
    side += 2 * round(side * margin)
    crop = Image.new("RGB", (side, side), (255, 255, 255))
    at = (side - (right - left)) // 2, (side - (bottom - top)) // 2
    crop.paste(to_pil(cut).crop((left, top, right, bottom)), at)
    return crop
