"""Everything about one object in one picture row: what was learned, and its properties on other objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from ice_core.evaluation.quality import Grade
from ice_core.figures.lettering import (
    PAPER,
    arrow,
    badge,
    badge_width,
    font,
    framed,
    heading,
    small,
    wrap,
)

GAP, TILE = 16, 232
_HEAD, _CAPTION, _SMALL_TILE, _ARROW = 40, 72, 112, 40
_BETWEEN = 22

GRADES: Mapping[Grade, tuple[str, tuple[int, int, int]]] = {
    "well": ("came out well", (34, 140, 80)),
    "weak": ("weak", (205, 125, 10)),
    "not": ("did not come out", (200, 50, 60)),
}
"""What a mark says, and its colour."""


@dataclass(frozen=True)
class Tile:
    """A picture with a caption above it, and the prompt it was drawn with, if any."""

    caption: str
    picture: Image.Image
    detail: str = ""


@dataclass(frozen=True)
class Transfer:
    """A property on another object. without: the same prompt and noise, the token left out; grade: how it
    came out, a key of `GRADES`, or None where nobody judged."""

    caption: str
    picture: Image.Image
    without: Image.Image
    detail: str
    grade: Grade | None = None


@dataclass(frozen=True)
class Row:
    """Everything about one concept; `color` is the one its mask has in the overlay."""

    title: str
    subtitle: str
    color: tuple[int, int, int]
    tiles: tuple[Tile, ...]
    transfers: tuple[Transfer, ...] = ()


def concept_row(row: Row, tile: int = TILE) -> Image.Image:
    """A coloured name, the tiles with their captions above, and a second line with the transfers."""
    width = len(row.tiles) * (tile + GAP) - GAP
    if row.transfers:
        width = max(width, tile + _pair(tile))
    lines = _in_lines(row.transfers, width - tile - GAP, tile)
    line_height = _BETWEEN + _CAPTION + tile
    canvas = Image.new("RGB", (width, _HEAD + _CAPTION + tile + len(lines) * line_height), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.rounded_rectangle((0, 5, 10, 29), radius=4, fill=row.color)
    end = heading(draw, (22, 17), row.title, 22, width // 2)
    small(draw, (end + 16, 18), row.subtitle, 15, width - end - 16)
    for i, item in enumerate(row.tiles):
        x = i * (tile + GAP)
        heading(draw, (x, _HEAD + 12), item.caption, 16, tile)
        _detail(draw, (x, _HEAD + 30), item.detail, tile)
        framed(canvas, item.picture, (x, _HEAD + _CAPTION), tile)
    for i, line in enumerate(lines):
        top = _HEAD + _CAPTION + tile + i * line_height + _BETWEEN
        if i == 0:
            _explain(canvas, (0, top), row, tile)
        for j, shown in enumerate(line):
            _transfer(canvas, (tile + GAP + j * _pair(tile), top), shown, tile)
    return canvas


def _pair(tile: int) -> int:
    """Pixels from one transfer to the next."""
    return _small_side(tile) + _ARROW + tile + GAP


def _small_side(tile: int) -> int:
    return min(_SMALL_TILE, tile // 2)


def _in_lines(items: Sequence[Transfer], width: int, tile: int) -> list[Sequence[Transfer]]:
    """As many to a line as fit into `width` pixels."""
    most = max(1, (width + GAP) // _pair(tile))
    return [items[i : i + most] for i in range(0, len(items), most)]


def _explain(canvas: Image.Image, at: tuple[int, int], row: Row, tile: int) -> None:
    """What the second line is, below the object it belongs to."""
    draw = ImageDraw.Draw(canvas)
    heading(draw, (at[0], at[1] + 12), "on other objects", 16, tile)
    text = f"Each property of the {row.title} alone, on something else. "
    text += "The small picture is the same prompt and the same noise without the property."
    for line, words in enumerate(wrap(text, font(13), tile, 7)):
        small(draw, (at[0], at[1] + _CAPTION + 10 + 19 * line), words, 13, tile)


def _transfer(canvas: Image.Image, at: tuple[int, int], item: Transfer, tile: int) -> None:
    """Small picture without the property -> large one with it."""
    draw = ImageDraw.Draw(canvas)
    (x, y), side = at, _small_side(tile)
    top = y + _CAPTION
    middle = top + tile // 2
    room = _pair(tile) - GAP
    mark = GRADES[item.grade] if item.grade is not None else None
    end = heading(draw, (x, y + 12), item.caption, 16, room - (badge_width(mark[0]) + 10 if mark else 0))
    if mark:
        badge(draw, (end + 10, y + 12), *mark)
    _detail(draw, (x, y + 30), item.detail, room)
    small(draw, (x, middle - side // 2 - 12), "without it", 12, side)
    framed(canvas, item.without, (x, middle - side // 2), side)
    arrow(draw, (x + side + _ARROW / 2, middle), _ARROW - 14)
    framed(canvas, item.picture, (x + side + _ARROW, top), tile)


def _detail(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int) -> None:
    """Up to three lines of small print."""
    for line, words in enumerate(wrap(text, font(12), width, 3)):
        small(draw, (at[0], at[1] + 15 * line), words, 12, width)
