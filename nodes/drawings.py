"""Small pictures that nodes show: a bar chart of words, and what a training has learned so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from ice_core.localization.retrieval.retriever import Retrieved

_WIDTH, _ROW, _MARGIN = 640, 40, 24
_PAPER, _INK, _GREY = (255, 255, 255), (28, 30, 34), (112, 118, 128)


def word_chart(words: Sequence[Retrieved]) -> Image.Image:
    """One bar per word, as long as its similarity with the picture is against the best one's."""
    from ice_core.figures.lettering import font
    from ice_core.figures.pictures import color_of

    canvas = Image.new("RGB", (_WIDTH, 2 * _MARGIN + _ROW * len(words)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    labels = max((font(18).getlength(word.label) for word in words), default=0)
    left = _MARGIN + min(labels, _WIDTH / 2) + 14
    room = _WIDTH - _MARGIN - left - 64
    longest = max([1e-6, *(word.similarity for word in words)])
    for i, word in enumerate(words):
        middle = _MARGIN + _ROW * (i + 0.5)
        length = max(2, room * max(0.0, word.similarity) / longest)
        draw.text((left - 14, middle), word.label, fill=_INK, font=font(18), anchor="rm")
        draw.rounded_rectangle((left, middle - 12, left + length, middle + 12), 5, fill=color_of(0))
        score = f"{word.similarity:.3f}"
        draw.text((left + length + 10, middle), score, fill=_GREY, font=font(15), anchor="lm")
    return canvas
