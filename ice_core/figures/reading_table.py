"""What was read of every object, as one picture: the object, and per axis how likely each value is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from ice_core.attributes.values import Reading, Readings
from ice_core.concepts import Concept
from ice_core.figures.lettering import GREY, INK, LINE, PAPER, font, framed, heading, shorten, small
from ice_core.figures.pictures import color_of, masked_crop

_MARGIN, _GAP, _CROP = 24, 20, 150
_COLUMN, _LINE_HEIGHT, _HEAD = 232, 24, 34
_WORD, _NUMBER = 104, 46
_SHOWN = 5
_FAINT = (206, 210, 217)


def reading_table(image: Tensor, concepts: Sequence[Concept], readings: Readings) -> Image.Image:
    """One row per object of a picture [3, H, W] in 0..1, one column per axis that any of them has.

    Bars are probabilities; an axis that nothing fits is grey and says so, as does a free one. What a user
    said is marked.
    """
    axes = list(dict.fromkeys(axis for concept in concepts for axis in readings.get(concept.key, {})))
    height = max(_CROP, _HEAD + _SHOWN * _LINE_HEIGHT)
    width = _CROP + max(1, len(axes)) * (_GAP + _COLUMN)
    row = _HEAD + height + _GAP
    size = width + 2 * _MARGIN, max(1, len(concepts)) * row - _GAP + 2 * _MARGIN
    table = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(table)
    if not concepts:
        small(draw, (_MARGIN, _MARGIN + 17), "no objects", 16, width)
    for i, concept in enumerate(concepts):
        y = _MARGIN + i * row
        draw.rounded_rectangle((_MARGIN, y + 4, _MARGIN + 10, y + 28), radius=4, fill=color_of(i))
        heading(draw, (_MARGIN + 22, y + 16), concept.key, 20, width - 22)
        framed(table, masked_crop(image, concept), (_MARGIN, y + _HEAD), _CROP)
        found: Mapping[str, Reading] = readings.get(concept.key, {})
        for j, axis in enumerate(axes):
            if axis in found:
                at = _MARGIN + _CROP + _GAP + j * (_COLUMN + _GAP), y + _HEAD
                _draw_reading(draw, at, found[axis], color_of(i))
    return table


def _draw_reading(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], reading: Reading, color: tuple[int, int, int]
) -> None:
    x, y = at
    note = _note(reading)
    taken = round(font(12).getlength(note)) + 8 if note else 0
    end = heading(draw, (x, y + 12), reading.axis, 16, _COLUMN - taken)
    small(draw, (end + 8, y + 13), note, 12, taken)
    for line, candidate in enumerate(reading.candidates[:_SHOWN]):
        middle = y + _HEAD + line * _LINE_HEIGHT + _LINE_HEIGHT // 2 - 4
        best = line == 0 and reading.fits
        face = font(14, best)
        word = shorten(candidate.value, face, _WORD - 8)
        draw.text((x, middle), word, fill=INK if best else GREY, font=face, anchor="lm")
        start, end = x + _WORD, x + _COLUMN - _NUMBER
        draw.rectangle((start, middle - 6, end, middle + 6), outline=LINE)
        filled = round((end - start) * min(1.0, max(0.0, candidate.weight)))
        if filled:
            draw.rectangle((start, middle - 6, start + filled, middle + 6), fill=color if best else _FAINT)
        draw.text((x + _COLUMN, middle), f"{candidate.weight:.0%}", fill=GREY, font=font(13), anchor="rm")


def _note(reading: Reading) -> str:
    if not reading.fits:
        if reading.reader == "user":
            return "left out"
        return "nothing fits" if reading.candidates else "free"
    return {"user": "as you said", "model": "by the model", "clip": "", "both": ""}[reading.reader]
