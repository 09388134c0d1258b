"""Pictures and masks from files, and back: whatever a camera or a paint program writes."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ice_core.errors import IceError
from ice_core.files.decoding import Size, decoded, frames_of, turn_of, values_of
from ice_core.files.paths import atomic_write

MIN_SIDE = 32


def load_image(path: Path) -> Tensor:
    """A picture file -> [3, H, W], float32 in 0..1; see `load_image_with_notes`."""
    return load_image_with_notes(path)[0]


def load_image_with_notes(path: Path) -> tuple[Tensor, tuple[str, ...]]:
    """A picture file -> [3, H, W], float32 in 0..1, and what was done to it, for people.

    Turned upright as its EXIF data says; 16-bit, palette, grey and CMYK files become RGB; transparency is
    laid over white; of an animation the first frame is taken; what has more than `KEPT_PIXELS` is shrunk.
    Raises IceError when the file is missing, damaged, cut short, or has a side under 32 pixels, over
    `MAX_SIDE`, or more pixels than `MAX_PIXELS`.
    """
    path = Path(path)
    return _taken(*_open(path), str(path), path.name)


def as_image(picture: Path | str | bytes | Image.Image | Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """A file or its content, a PIL picture or a tensor [3, H, W] in 0..1 -> what `load_image_with_notes`
    gives of a file.

    Raises IceError for what is no such picture, or has a side under 32 pixels.
    """
    if isinstance(picture, Image.Image):
        return _taken(picture, picture.size, "the picture", "the picture")
    if isinstance(picture, bytes):
        return _taken(*decoded(picture, "the picture"), "the picture", "the picture")
    if not isinstance(picture, Tensor):
        return load_image_with_notes(Path(picture))
    if picture.ndim != 3 or picture.shape[0] != 3 or min(picture.shape[1:]) < MIN_SIDE:
        shape = list(picture.shape)
        raise IceError(f"the picture has shape {shape}; give [3, height, width], {MIN_SIDE} or more per side")
    values = picture.detach().float().cpu()
    if not values.isfinite().all() or values.min() < 0 or values.max() > 1:
        raise IceError("the picture holds values outside of 0..1; divide bytes by 255")
    return values.contiguous(), ()


def _taken(image: Image.Image, size: Size, where: str, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Pixels and notes of an open picture that was of this (width, height); where, name: for messages and
    notes."""
    notes = []
    if (frames := frames_of(image)) > 1:
        notes.append(f"{name}: the first of {frames} frames was taken")
    width, height = size
    if min(size) < MIN_SIDE:
        raise IceError(f"{where} is {width} x {height} pixels; each side must have at least {MIN_SIDE}")
    if (turn := turn_of(image)) is not None:
        notes.append(f"{name}: turned upright as its EXIF data says")
    values = values_of(image, turn, where)
    if values.shape[1] * values.shape[2] < width * height:
        sides = f"{values.shape[2]} x {values.shape[1]}"
        notes.append(f"{name}: shrunk from {width} x {height} to {sides} pixels")
    if len(values) == 4:
        opacity = values[3:]
        if opacity.min() < 1:
            notes.append(f"{name}: transparent parts were laid over white")
        values = values[:3].mul_(opacity).add_(1 - opacity)
    return values.contiguous(), tuple(notes)


def load_mask(path: Path, size: Size) -> tuple[Tensor, bool]:
    """A mask file -> [H, W] bool of `size` (height, width), and whether it had to be resized.

    Bright and opaque is inside: more than half of the file's largest value. Raises IceError when it cannot
    be read or nothing is inside.
    """
    image, _ = _open(Path(path))
    values = values_of(image, turn_of(image), f"the mask {path}")
    grey = values[:3].amax(0) * (values[3] if len(values) == 4 else 1)
    mask = grey > grey.max() / 2
    if not mask.any():
        raise IceError(f"the mask {path} is all zero; paint the object white on black")
    resized = resize_mask(mask, size)
    if not resized.any():
        raise IceError(f"nothing is left of the mask {path} at {size[1]} x {size[0]}; mark a larger area")
    return resized, tuple(mask.shape) != tuple(size)


def image_from_bytes(data: bytes, where: str) -> Tensor:
    """The content of a picture file -> [3, H, W], float32 in 0..1; where: what messages call it.

    Raises IceError when it is damaged, or has a side under 32 pixels.
    """
    return _taken(*decoded(data, where), where, where)[0]


def _open(path: Path) -> tuple[Image.Image, Size]:
    """A picture file as pixels, and its (width, height)."""
    if not path.is_file():
        raise IceError(f"there is no picture {path}")
    return decoded(path, f"the picture {path}")


def working_size(height: int, width: int, native_size: int, multiple: int) -> Size:
    """(height, width) to work at: the aspect kept, about native_size ** 2 pixels, sides in multiples."""
    scale = native_size / (height * width) ** 0.5

    def fit(side: int) -> int:
        return max(multiple, round(side * scale / multiple) * multiple)

    return fit(height), fit(width)


def resize(image: Tensor, size: Size) -> Tensor:
    """[3, H, W] in 0..1 -> [3, *size]: bicubic with antialiasing; untouched when it already fits."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)


def resize_mask(mask: Tensor, size: Size) -> Tensor:
    """[H, W] bool -> [*size] bool, nearest neighbour."""
    if tuple(mask.shape) == tuple(size):
        return mask
    return F.interpolate(mask[None, None].float(), size, mode="nearest-exact")[0, 0] > 0.5


def to_pil(image: Tensor) -> Image.Image:
    """[3, H, W] in 0..1 or [H, W] bool -> an 8-bit picture."""
    values = (image.detach().float().cpu().clamp(0, 1) * 255).round().byte().numpy()
    return Image.fromarray(values if values.ndim == 2 else np.ascontiguousarray(values.transpose(1, 2, 0)))


def save_png(image: Image.Image | Tensor, path: Path, text: dict[str, str] | None = None) -> Path:
    """Write a PNG whole or not at all; `text` goes into its text chunks."""
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    buffer = io.BytesIO()
    picture = to_pil(image) if isinstance(image, Tensor) else image
    picture.save(buffer, "PNG", pnginfo=info)
    return atomic_write(path, buffer.getvalue())


def jpeg_bytes(image: Image.Image | Tensor, side: int | None = None, quality: int = 90) -> bytes:
    """A JPEG file's content; side: of the square that the picture is made to fit into."""
    picture = to_pil(image) if isinstance(image, Tensor) else image.copy()
    if side is not None:
        picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def media_type(data: bytes) -> str | None:
    """The media type of a JPEG or PNG, by how its bytes begin; None for all else: what a stranger's file
    calls a picture may be anything, and no other kind is shown in a page."""
    kinds = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}
    return next((kind for start, kind in kinds.items() if data.startswith(start)), None)


def data_uri(image: Image.Image | Tensor, side: int = 256) -> str:
    """A small JPEG as a data URI, for thumbnails in file headers."""
    return _uri(jpeg_bytes(image, side, 85))


def as_data_uri(picture: bytes) -> str:
    """`data_uri` of a picture file's content; IceError where it is none."""
    return data_uri(decoded(picture, "the picture of the concepts")[0])


def uri_bytes(uri: str) -> bytes:
    """The content of a data URI in base64. Raises IceError for anything else."""
    head, comma, text = uri.partition(",")
    try:
        if not (head.startswith("data:image/") and head.endswith(";base64") and comma):
            raise ValueError("no data:image/...;base64,")
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise IceError(f"the picture {uri[:40]!r} is no data URI ({error}); it is damaged") from error


def _uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
