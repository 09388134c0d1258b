"""Text and boxes as every figure draws them: one face, one ink, nothing that runs over its place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from ice_core.files.names import printable

INK, GREY, LINE, PAPER = (28, 30, 34), (112, 118, 128), (222, 225, 230), (255, 255, 255)


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans from matplotlib's own files, so that it is there on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def shorten(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """`text` on one line, cut with an ellipsis where it is wider than `width` pixels."""
    text = printable(text)
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text.rstrip() + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def heading(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, width: float) -> int:
    """Bold text, vertically centred on a point, cut to `width`; where it ends."""
    text = shorten(text, font(size, True), width)
    draw.text(at, text, fill=INK, font=font(size, True), anchor="lm")
    return round(at[0] + font(size, True).getlength(text))


def badge(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, color: tuple[int, int, int]) -> None:
    """White words on a coloured pill whose left end is at a point, vertically centred on it."""
    box = (at[0], at[1] - 9, at[0] + badge_width(text), at[1] + 9)
    draw.rounded_rectangle(box, radius=9, fill=color)
    draw.text((at[0] + 7, at[1]), text, fill=PAPER, font=font(11, True), anchor="lm")


def badge_width(text: str) -> int:
    """Pixels that a `badge` takes."""
    return round(font(11, True).getlength(text)) + 14


def arrow(draw: ImageDraw.ImageDraw, at: tuple[float, float], length: int) -> None:
    """An arrow to the right, its middle at a point."""
    x, y, head = at[0] + length / 2, at[1], max(7, length // 3)
    draw.line((x - length, y, x - head, y), fill=GREY, width=max(3, length // 12))
    draw.polygon(((x, y), (x - head, y - head * 0.7), (x - head, y + head * 0.7)), fill=GREY)


def framed(canvas: Image.Image, picture: Image.Image, at: tuple[int, int], side: int) -> None:
    """A picture in the middle of a square with a thin frame, as large as fits."""
    picture = contain(picture, (side, side))
    canvas.paste(picture, (at[0] + (side - picture.width) // 2, at[1] + (side - picture.height) // 2))
    frame = (at[0], at[1], at[0] + side - 1, at[1] + side - 1)
    ImageDraw.Draw(canvas).rectangle(frame, outline=LINE)


def listed(words: Sequence[str]) -> str:
    """ "color, material and pattern"."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def small(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, width: float) -> None:
    """Grey text, vertically centred on a point, cut to `width`."""
    draw.text(at, shorten(text, font(size), width), fill=GREY, font=font(size), anchor="lm")


def wrap(text: str, face: ImageFont.FreeTypeFont, width: float, lines: int) -> list[str]:
    """Break at spaces into at most `lines` lines of `width` pixels; what is left over is cut."""
    wrapped: list[str] = []
    for word in text.split():
        if wrapped and face.getlength(f"{wrapped[-1]} {word}") <= width:
            wrapped[-1] += f" {word}"
        else:
            wrapped.append(word)
    kept = [*wrapped[: lines - 1], " ".join(wrapped[lines - 1 :])]
    return [shorten(line, face, width) for line in kept if line]


def contain(picture: Image.Image, box: tuple[int, int]) -> Image.Image:
    """Scaled to fit into (width, height), the aspect kept; smooth for any factor."""
    scale = min(box[0] / picture.width, box[1] / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)
