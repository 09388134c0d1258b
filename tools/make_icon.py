"""Draws the registry's icon and banner: a scene of the demo's world, taken apart.

python tools/make_icon.py               # docs/icon.png, 400 x 400, and docs/banner.png, 21:9
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if (_root := str(Path(__file__).absolute().parents[1])) not in sys.path:
    sys.path.append(_root)

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ice_core.figures.lettering import arrow, font
from ice_core.figures.pictures import color_of
from ice_core.files.images import save_png, to_pil
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene

DOCS = Path(__file__).absolute().parents[1] / "docs"
ICON, BANNER = (400, 400), (1260, 540)
SEED = 1
_PAPER, _INK, _GREY = (255, 255, 255), (28, 30, 34), (112, 118, 128)


def pieces(side: int) -> list[Image.Image]:
    """The scene, and each of its objects on white in a frame of its mask's color, `side` pixels wide."""
    rendered = render([sample_scene(SEED, count=2)])
    image = rendered.images[0]
    found = [image, *(_alone(image, mask) for mask in rendered.masks[0, :2].bool())]
    pictures = [to_pil(one).resize((side, side), Image.Resampling.LANCZOS) for one in found]
    for n, picture in enumerate(pictures[1:]):
        frame = (1, 1, side - 2, side - 2)
        ImageDraw.Draw(picture).rounded_rectangle(frame, side // 14, outline=color_of(n), width=side // 32)
    return pictures


def _alone(image: Tensor, mask: Tensor) -> Tensor:
    """One object [3, H, W] on white."""
    return torch.where(mask, image, torch.ones_like(image))


def icon() -> Image.Image:
    """The scene above, its two objects below."""
    width, height = ICON
    canvas, half = Image.new("RGB", ICON, _PAPER), width // 2
    scene, *objects = pieces(half - 12)
    canvas.paste(scene.resize((half + 20, half + 20)), ((width - half - 20) // 2, 4))
    for n, picture in enumerate(objects):
        small = picture.resize((half - 40, half - 40))
        canvas.paste(small, (26 + n * (half - 12), height - half + 32))
    return canvas


def banner() -> Image.Image:
    """The scene, an arrow, its two objects, and what this is."""
    width, height = BANNER
    canvas, side = Image.new("RGB", BANNER, _PAPER), 300
    draw = ImageDraw.Draw(canvas)
    scene, *objects = pieces(side)
    x = (width - 3 * side - 130) // 2
    canvas.paste(scene, (x, 60))
    arrow(draw, (x + side + 50, 60 + side / 2), 60)
    for n, picture in enumerate(objects):
        canvas.paste(picture, (x + side + 100 + n * (side + 30), 60))
    lines = (("ICE: one picture, taken apart into reusable concepts", 44, _INK, height - 120),)
    lines += (("a token for every object, and for each of its properties", 28, _GREY, height - 60),)
    for text, size, color, y in lines:
        draw.text((width / 2, y), text, fill=color, font=font(size), anchor="mm")
    return canvas


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DOCS, help="folder to write to")
    options = parser.parse_args(arguments)
    for name, picture in (("icon", icon()), ("banner", banner())):
        print(save_png(picture, options.out / f"{name}.png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
