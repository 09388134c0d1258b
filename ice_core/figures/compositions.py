"""What people come for, at a glance: this object's properties + that object -> both in one picture."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw

from ice_core.figures.lettering import GREY, INK, PAPER, arrow, font, framed, heading, shorten, small, wrap

_SOURCE, _PLUS, _ARROW, _GAP, _HEAD, _BELOW = 190, 36, 84, 16, 62, 44
_LARGEST = 320
PLAIN = (190, 195, 203)
"""Colour of a part that is no object of the picture."""


@dataclass(frozen=True)
class Part:
    """What goes into a composition. picture: the object alone; None for a plain word, shown as such; color:
    of its mask in the overlay."""

    name: str
    gives: str
    picture: Image.Image | None
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Composition:
    """properties, thing: what gives the look and what gives the kind; pictures: several noises of `prompt`,
    in which both are put together."""

    caption: str
    prompt: str
    properties: Part
    thing: Part
    pictures: tuple[Image.Image, ...]


def composition_panel(composition: Composition, width: int) -> Image.Image:
    """Two sources, an arrow, and the results of `width` pixels in all; captions above and below."""
    left = 2 * _SOURCE + _PLUS + _ARROW
    count = len(composition.pictures)
    side = min(_LARGEST, (width - left - (count - 1) * _GAP) // count)
    top = _HEAD + max(0, side - _SOURCE) // 2
    canvas = Image.new("RGB", (width, max(_HEAD + side, top + _SOURCE + _BELOW)), PAPER)
    draw = ImageDraw.Draw(canvas)
    heading(draw, (left, 14), composition.caption, 20, width - left)
    small(draw, (left, 42), composition.prompt, 14, width - left)
    middle = top + _SOURCE // 2
    _source(canvas, (0, top), composition.properties)
    draw.text((_SOURCE + _PLUS / 2, middle), "+", fill=GREY, font=font(30, True), anchor="mm")
    _source(canvas, (_SOURCE + _PLUS, top), composition.thing)
    arrow(draw, (left - _ARROW / 2, middle), _ARROW - 24)
    for i, picture in enumerate(composition.pictures):
        framed(canvas, picture, (left + i * (side + _GAP), _HEAD), side)
    return canvas


def _source(canvas: Image.Image, at: tuple[int, int], part: Part) -> None:
    draw, (x, y) = ImageDraw.Draw(canvas), at
    if part.picture is None:
        framed(canvas, Image.new("RGB", (_SOURCE, _SOURCE), (246, 247, 249)), at, _SOURCE)
        face = font(24)
        word = shorten(part.name, face, _SOURCE - 24)
        draw.text((x + _SOURCE / 2, y + _SOURCE / 2), word, fill=INK, font=face, anchor="mm")
    else:
        framed(canvas, part.picture, at, _SOURCE)
    draw.rectangle((x, y + _SOURCE, x + _SOURCE - 1, y + _SOURCE + 4), fill=part.color)
    for line, words in enumerate(wrap(part.gives, font(13, True), _SOURCE, 2)):
        face = font(13, True)
        draw.text((x, y + _SOURCE + 18 + 17 * line), words, fill=INK, font=face, anchor="lm")
