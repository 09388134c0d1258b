"""What a training has learned so far, at a glance."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from ice_core.figures.lettering import font

_PAPER, _INK, _GREY = (255, 255, 255), (28, 30, 34), (112, 118, 128)


def captioned(pictures: Sequence[Image.Image], captions: Sequence[str], line: str) -> Image.Image:
    """Pictures of one size side by side, each with its caption, and a line below all of them."""
    # Small pictures are enlarged, so that there is room to read what is written below them.
    side = max(192, pictures[0].width)
    scaled = [picture.resize((side, side * picture.height // picture.width)) for picture in pictures]
    height, band = scaled[0].height, 26
    canvas = Image.new("RGB", (side * len(scaled), height + 2 * band), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for i, (picture, caption) in enumerate(zip(scaled, captions, strict=True)):
        canvas.paste(picture, (side * i, 0))
        draw.text((side * (i + 0.5), height + band / 2), caption, fill=_INK, font=font(15), anchor="mm")
    draw.text((8, height + band * 1.5), line, fill=_GREY, font=font(13), anchor="lm")
    return canvas
