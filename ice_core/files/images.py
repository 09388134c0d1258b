"""Pictures and masks from files, and back: whatever a camera or a paint program writes."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ice_core.errors import IceError
from ice_core.files.paths import atomic_write

MIN_SIDE = 32
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
Size = tuple[int, int]


def load_image(path: Path) -> Tensor:
    """A picture file -> [3, H, W], float32 in 0..1; see `load_image_with_notes`."""
    return load_image_with_notes(path)[0]


def load_image_with_notes(path: Path) -> tuple[Tensor, tuple[str, ...]]:
    """A picture file -> [3, H, W], float32 in 0..1, and what was done to it, for people.

    Turned upright as its EXIF data says; 16-bit, palette, grey and CMYK files become RGB; transparency is
    laid over white; of an animation the first frame is taken. Raises IceError when the file is missing,
    damaged, cut short, or has a side under 32 pixels.
    """
    path = Path(path)
    return _taken(_open(path), str(path), path.name)


def as_image(picture: Path | str | Image.Image | Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """A file, a PIL picture or a tensor [3, H, W] in 0..1 -> what `load_image_with_notes` gives of a file.

    Raises IceError for what is no such picture, or has a side under 32 pixels.
    """
    if isinstance(picture, Image.Image):
        return _taken(picture, "the picture", "the picture")
    if not isinstance(picture, Tensor):
        return load_image_with_notes(Path(picture))
    if picture.ndim != 3 or picture.shape[0] != 3 or min(picture.shape[1:]) < MIN_SIDE:
        shape = list(picture.shape)
        raise IceError(f"the picture has shape {shape}; give [3, height, width], {MIN_SIDE} or more per side")
    values = picture.detach().float().cpu()
    if not values.isfinite().all() or values.min() < 0 or values.max() > 1:
        raise IceError("the picture holds values outside of 0..1; divide bytes by 255")
    return values.contiguous(), ()


def _taken(image: Image.Image, where: str, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """Pixels and notes of an open picture; where, name: for messages and notes."""
    notes = []
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        notes.append(f"{name}: the first of {getattr(image, 'n_frames', 1)} frames was taken")
    if min(image.size) < MIN_SIDE:
        width, height = image.size
        raise IceError(f"{where} is {width} x {height} pixels; each side must have at least {MIN_SIDE}")
    upright = _upright(image)
    if upright is not image:
        notes.append(f"{name}: turned upright as its EXIF data says")
    values = _values(upright)
    if len(values) == 4:
        if values[3].min() < 1:
            notes.append(f"{name}: transparent parts were laid over white")
        values = values[:3] * values[3:] + (1 - values[3:])
    return values.contiguous(), tuple(notes)


def load_mask(path: Path, size: Size) -> tuple[Tensor, bool]:
    """A mask file -> [H, W] bool of `size` (height, width), and whether it had to be resized.

    Bright and opaque is inside: more than half of the file's largest value. Raises IceError when it cannot
    be read or nothing is inside.
    """
    values = _values(_upright(_open(Path(path))))
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
    return _taken(_decoded(data, where), where, where)[0]


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise IceError(f"there is no picture {path}")
    return _decoded(path, f"the picture {path}")


def _decoded(source: Path | bytes, where: str) -> Image.Image:
    """A picture file, or its content, as pixels. Raises IceError for anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            image = Image.open(file, formats=FORMATS)
            image.load()
    # Decoders raise whatever comes up in damaged data: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise IceError(
            f"cannot read {where}: {error}; it is damaged, cut short, or not PNG, JPEG or WebP"
        ) from error
    return image


def _upright(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(0x0112, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:
        # Damaged EXIF data is no reason to refuse a picture that decodes.
        return image


def _values(image: Image.Image) -> Tensor:
    """[3 or 4, H, W] in 0..1; the fourth is opacity, only where the file has one."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image).astype(np.float32)
        if image.mode == "F":
            full = 1.0 if grey.max() <= 1 else 255.0
        else:
            full = 65535.0 if "16" in image.mode or grey.max() > 255 else 255.0
        return torch.from_numpy((grey / full).clip(0, 1))[None].repeat(3, 1, 1)
    opaque = image.mode not in ("LA", "La", "PA", "RGBA", "RGBa") and "transparency" not in image.info
    pixels = np.asarray(image.convert("RGB" if opaque else "RGBA"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)


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


def data_uri(image: Image.Image | Tensor, side: int = 256) -> str:
    """A small JPEG as a data URI, for thumbnails in file headers."""
    return _uri(jpeg_bytes(image, side, 85))


def as_data_uri(picture: bytes) -> str:
    """`data_uri` of a picture file's content; IceError where it is none."""
    return data_uri(_decoded(picture, "the picture of the concepts"))


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
