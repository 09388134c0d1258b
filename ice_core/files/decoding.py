"""Pictures in files as pixels: the header is looked at before anything is decoded."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ice_core.errors import IceError

Size = tuple[int, int]
MAX_SIDE = 65_535
"""What a JPEG can have."""
MAX_PIXELS = {
    "PNG": 110_000_000,
    "JPEG": 110_000_000,
    "WEBP": 50_000_000,
    "BMP": 110_000_000,
    "TIFF": 50_000_000,
}
"""Of a file, by format: to decode more takes over a GiB, however small the file is. Phones make 108
million."""
KEPT_PIXELS = 25_000_000
"""Of a picture that is worked with; what has more is shrunk by a whole number. Cameras make 24 megapixels."""
FORMATS = tuple(MAX_PIXELS)

_OPAQUE, _MIXABLE = ("L", "RGB"), ("L", "LA", "RGB", "RGBA")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by its EXIF orientation."""


def decoded(source: Path | bytes, where: str) -> tuple[Image.Image, Size]:
    """A picture file, or its content, as pixels, and its (width, height); a JPEG may have been shrunk.

    Raises IceError for anything else, and for what has more than `MAX_SIDE` or `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            image = Image.open(file, formats=FORMATS)
            size = image.size
            # Nothing is decoded before the header was looked at.
            if not (problem := _too_large(image)):
                # A JPEG is shrunk while it is decoded; other formats leave this out.
                image.draft(None, _shrunk(image.size))
                image.load()
    # Decoders raise whatever comes up in damaged data: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise IceError(
            f"cannot read {where}: {error}; it is damaged, cut short, or not PNG, JPEG or WebP"
        ) from error
    if problem:
        raise IceError(f"{where} is {problem}; shrink it first")
    return image, size


def _too_large(image: Image.Image) -> str:
    """What is wrong with a picture's size, "" where nothing is."""
    (width, height), kind = image.size, image.format or "PNG"
    if max(width, height) > MAX_SIDE:
        return f"{width} x {height} pixels, and a side may have {MAX_SIDE}"
    most = MAX_PIXELS.get(kind, min(MAX_PIXELS.values()))
    if width * height > most:
        return f"{width} x {height} pixels, and a {kind} may have {most // 10**6} million"
    return ""


def frames_of(image: Image.Image) -> int:
    """How many frames an animation has; 1 for a picture, and where the file is cut after the first."""
    try:
        return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    except Exception:
        return 1


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """What makes the picture upright, None for one that is."""
    try:
        return _TURNS.get(image.getexif().get(0x0112, 1))
    except Exception:
        # Damaged EXIF data is no reason to refuse a picture that decodes.
        return None


def values_of(image: Image.Image, turn: Image.Transpose | None, where: str) -> Tensor:
    """[3 or 4, H, W] in 0..1, turned; the fourth is opacity, only where the file has one. IceError for
    a picture that cannot be converted."""
    try:
        if image.mode.startswith("I") or image.mode == "F":
            return _deep(image, turn)
        opaque = image.mode not in ("LA", "La", "PA", "RGBA", "RGBa") and "transparency" not in image.info
        kind = "RGB" if opaque else "RGBA"
        # A copy of a hundred megapixels is made only where colors cannot be mixed as they are.
        mixed = image if image.mode in _MIXABLE and opaque == (image.mode in _OPAQUE) else image.convert(kind)
        pixels = np.array(_fitted(mixed, turn).convert(kind))
    except Exception as error:
        raise IceError(f"cannot read {where}: {error}; it is damaged, or of a rare kind") from error
    return (
        torch.from_numpy(pixels)
        .permute(2, 0, 1)
        .to(torch.float32, memory_format=torch.contiguous_format)
        .div_(255)
    )


def _deep(image: Image.Image, turn: Image.Transpose | None) -> Tensor:
    """[3, H, W] of a grey picture of more than 8 bits."""
    words = "16" in image.mode
    grey = np.asarray(_fitted(image.convert("I") if words else image, turn)).astype(np.float32)
    if image.mode == "F":
        full = 1.0 if grey.max() <= 1 else 255.0
    else:
        full = 65535.0 if words or grey.max() > 255 else 255.0
    return torch.from_numpy(np.nan_to_num(grey / full).clip(0, 1))[None].repeat(3, 1, 1)


def _fitted(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    """Shrunk until it fits `KEPT_PIXELS`, and turned."""
    factor = _factor(image.size)
    small = image.reduce(factor) if factor > 1 else image
    return small if turn is None else small.transpose(turn)


def _factor(size: Size) -> int:
    """The whole number that sides must be divided by, to fit `KEPT_PIXELS`."""
    return math.ceil((size[0] * size[1] / KEPT_PIXELS) ** 0.5)


def _shrunk(size: Size) -> Size:
    return size[0] // _factor(size), size[1] // _factor(size)
