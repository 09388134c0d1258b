"""Pictures of a result, for a person who looks before reading: overlay, one row per concept, one sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ice_core.concepts import Concept
from ice_core.figures.plots import COLORS, loss_plot
from ice_core.files.images import to_pil
from ice_core.files.names import printable

_INK, _GREY, _LINE = (28, 30, 34), (112, 118, 128), (222, 225, 230)
_MARGIN, _GAP, _TILE = 36, 16, 232
_OVERLAY_SIDE = 384


@dataclass(frozen=True)
class Tile:
    """A picture with a caption above it, and the prompt it was drawn with, if any."""

    caption: str
    picture: Image.Image
    detail: str = ""


@dataclass(frozen=True)
class Row:
    """Everything about one concept; `color` is the one its mask has in the overlay."""

    title: str
    subtitle: str
    color: tuple[int, int, int]
    tiles: tuple[Tile, ...]


def color_of(index: int) -> tuple[int, int, int]:
    """The colour of the concept at a place in the list."""
    return COLORS[index % len(COLORS)]


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from matplotlib's own files, so that it is there on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


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
        text = _shorten(f"{concept.key}  {concept.score:.0%}", font(size, True), width - 4 * pad)
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


def _shorten(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """`text` on one line, cut with an ellipsis where it is wider than `width` pixels."""
    text = printable(text)
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text.rstrip() + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


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


def concept_row(row: Row, tile: int = _TILE) -> Image.Image:
    """One picture row: a coloured name on the first line, then the tiles with their captions above."""
    width = len(row.tiles) * (tile + _GAP) - _GAP
    head, caption = 40, 72
    canvas = Image.new("RGB", (width, head + caption + tile), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    draw.rounded_rectangle((0, 5, 10, 29), radius=4, fill=row.color)
    end = _heading(draw, (22, 17), row.title, 22, width // 2)
    _small(draw, (end + 16, 18), row.subtitle, 15, width - end - 16)
    for i, item in enumerate(row.tiles):
        x, y = i * (tile + _GAP), head
        _heading(draw, (x, y + 12), item.caption, 16, tile)
        for line, text in enumerate(_wrap(item.detail, font(12), tile, 3)):
            _small(draw, (x, y + 30 + 15 * line), text, 12, tile)
        picture = contain(item.picture, (tile, tile))
        at = x + (tile - picture.width) // 2, y + caption + (tile - picture.height) // 2
        canvas.paste(picture, at)
        draw.rectangle((x, y + caption, x + tile - 1, y + caption + tile - 1), outline=_LINE)
    return canvas


def _heading(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, width: float) -> int:
    """Bold text, vertically centred on a point, cut to `width`; where it ends."""
    text = _shorten(text, font(size, True), width)
    draw.text(at, text, fill=_INK, font=font(size, True), anchor="lm")
    return round(at[0] + font(size, True).getlength(text))


def _small(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, width: float) -> None:
    draw.text(at, _shorten(text, font(size), width), fill=_GREY, font=font(size), anchor="lm")


def _wrap(text: str, face: ImageFont.FreeTypeFont, width: float, lines: int) -> list[str]:
    """Break at spaces into at most `lines` lines of `width` pixels; what is left over is cut."""
    wrapped: list[str] = []
    for word in text.split():
        if wrapped and face.getlength(f"{wrapped[-1]} {word}") <= width:
            wrapped[-1] += f" {word}"
        else:
            wrapped.append(word)
    kept = [*wrapped[: lines - 1], " ".join(wrapped[lines - 1 :])]
    return [_shorten(line, face, width) for line in kept if line]


def contain(picture: Image.Image, box: tuple[int, int]) -> Image.Image:
    """Scaled to fit into (width, height), the aspect kept; smooth for any factor."""
    scale = min(box[0] / picture.width, box[1] / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def contact_sheet(
    image: Tensor,
    concepts: Sequence[Concept],
    rows: Sequence[Row],
    losses: Mapping[str, Sequence[float]],
    switch: int,
    title: str,
    settings: str,
    refinement: int | None = None,
) -> Image.Image:
    """Everything at a glance: title, input | what was found | losses, then one row per concept.

    switch, refinement: where the losses' phases begin, see `loss_plot`.
    """
    drawn = [concept_row(row) for row in rows]
    width = max([5 * (_TILE + _GAP) - _GAP, *(row.width for row in drawn)])
    panel = (width - 2 * _GAP) // 7 * 2
    height, aspect = 440, image.shape[-1] / image.shape[-2]
    height = min(height, max(260, round(panel / aspect)))
    plot_width = width - 2 * (panel + _GAP)
    panels = (
        ("input", contain(to_pil(image), (panel, height))),
        ("what was found", overlay(image, concepts, (panel, height))),
        ("losses", loss_plot(losses, switch, (plot_width, height), refinement)),
    )
    head, label, between = 84, 30, 34
    total = head + label + height + sum(between + row.height for row in drawn)
    sheet = Image.new("RGB", (width + 2 * _MARGIN, total + 2 * _MARGIN), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    _heading(draw, (_MARGIN, _MARGIN + 16), title, 30, width)
    _small(draw, (_MARGIN, _MARGIN + 51), settings, 15, width)
    for i, (name, picture) in enumerate(panels):
        x, y = _MARGIN + i * (panel + _GAP), _MARGIN + head
        _heading(draw, (x, y + 12), name, 16, panel)
        sheet.paste(picture, (x, y + label))
    y = _MARGIN + head + label + height
    for row in drawn:
        draw.line((_MARGIN, y + between // 2, _MARGIN + width, y + between // 2), fill=_LINE)
        y += between
        sheet.paste(row, (_MARGIN, y))
        y += row.height
    return sheet
