"""Pictures and masks from files of every make, and what is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ice_core.errors import IceError
from ice_core.files import decoding
from ice_core.files.images import (
    as_image,
    data_uri,
    load_image,
    load_image_with_notes,
    load_mask,
    media_type,
    resize,
    resize_mask,
    save_png,
    to_pil,
    uri_bytes,
    working_size,
)


def picture(height: int = 40, width: int = 60) -> Image.Image:
    """Red left half, blue right half, with a green top row."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    pixels[:8] = (0, 255, 0)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_png_jpeg_and_webp_load_as_rgb_floats(tmp_path: Path, suffix: str) -> None:
    picture().save(tmp_path / f"a.{suffix}", quality=95)
    image, notes = load_image_with_notes(tmp_path / f"a.{suffix}")
    assert image.shape == (3, 40, 60)
    assert image.dtype == torch.float32
    assert image.min() >= 0
    assert image.max() <= 1
    assert image[0, 30, 10] > 0.9
    assert image[2, 30, 50] > 0.9
    assert notes == ()


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "RGB"])
def test_other_colour_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    source = picture().convert(mode)
    source.save(tmp_path / f"a.{suffix}", quality=95)
    expected = np.asarray(source.convert("RGB"), dtype=np.float32) / 255
    image = load_image(tmp_path / f"a.{suffix}")
    assert image.shape == (3, 40, 60)
    assert (image.permute(1, 2, 0).numpy() - expected).mean() == pytest.approx(0, abs=0.02)


def test_sixteen_bit_pictures_keep_their_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert torch.allclose(image[1], torch.from_numpy(ramp.astype(np.float32) / 65535), atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int) -> None:
    undo = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]
    stored = picture()
    for step in undo:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    image, notes = load_image_with_notes(tmp_path / "a.png")
    assert torch.equal(image, torch.from_numpy(np.asarray(picture()).copy()).permute(2, 0, 1) / 255)
    assert bool(notes) == (orientation > 1)


def test_transparency_is_laid_over_white_and_said(tmp_path: Path) -> None:
    source = picture().convert("RGBA")
    source.putalpha(Image.fromarray(np.tile(np.array([0, 128, 255], np.uint8).repeat(20), (40, 1))))
    source.save(tmp_path / "a.png")
    image, notes = load_image_with_notes(tmp_path / "a.png")
    assert torch.equal(image[:, 30, 5], torch.ones(3))
    assert image[:, 30, 25].tolist() == pytest.approx([1, 1 - 128 / 255, 1 - 128 / 255])
    assert torch.equal(image[:, 30, 50], torch.tensor([0.0, 0, 1]))
    assert "white" in notes[0]


def test_a_transparent_palette_colour_is_laid_over_white(tmp_path: Path) -> None:
    source = picture().convert("P", palette=Image.Palette.ADAPTIVE)
    source.save(tmp_path / "a.png", transparency=source.getpixel((5, 30)))
    assert load_image(tmp_path / "a.png")[:, 30, 5].tolist() == [1, 1, 1]


def test_missing_corrupt_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    picture(200, 200).save(tmp_path / "whole.png")
    picture(200, 200).save(tmp_path / "whole.jpg")
    for name in ("whole.png", "whole.jpg"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / f"cut-{name}").write_bytes(data[: len(data) // 2])
    (tmp_path / "noise.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(200)))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.webp").touch()
    for name in ("cut-whole.png", "cut-whole.jpg", "noise.png", "text.png", "empty.webp"):
        with pytest.raises(IceError, match=r"cannot read the picture .*" + name):
            load_image(tmp_path / name)
    with pytest.raises(IceError, match="there is no picture"):
        load_image(tmp_path / "absent.png")
    with pytest.raises(IceError, match="there is no picture"):
        load_image(tmp_path)


@pytest.mark.parametrize("size", [(31, 400), (400, 31), (1, 1)])
def test_a_side_under_32_pixels_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    picture(*size).save(tmp_path / "a.png")
    with pytest.raises(IceError, match=f"{size[1]} x {size[0]} pixels.*32"):
        load_image(tmp_path / "a.png")


def header_only(size: tuple[int, int]) -> bytes:
    """A PNG that claims to be of this size and holds nothing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    rest = (
        struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0)
        + b"IDAT"
        + struct.pack(">I", zlib.crc32(b"IDAT"))
    )
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + rest


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((13_300, 13_300), "13300 x 13300 pixels, and a PNG may have 110 million"),
        ((32, 5_000_000), "32 x 5000000 pixels, and a side may have 65535"),
        ((60_000, 60_000), "pixels"),
    ],
)
def test_a_size_that_takes_too_much_memory_is_refused_by_the_header(
    tmp_path: Path, size: tuple[int, int], message: str
) -> None:
    (tmp_path / "a.png").write_bytes(header_only(size))
    for read in (load_image, lambda path: load_mask(path, (40, 60))):
        with pytest.raises(IceError, match=message):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"])
def test_a_large_picture_is_shrunk_and_its_mask_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(decoding, "KEPT_PIXELS", 100 * 100)
    grey = np.asarray(picture(200, 300).convert("L")).astype(np.uint16) * 257
    source = Image.fromarray(grey) if mode == "I;16" else picture(200, 300).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    source.save(path)
    image, notes = load_image_with_notes(path)
    assert image.shape[1] * image.shape[2] <= 100 * 100
    assert f"shrunk from 300 x 200 to {image.shape[2]} x {image.shape[1]} pixels" in notes[-1]
    monkeypatch.undo()
    whole = load_image(path)
    assert (image.mean((1, 2)) - whole.mean((1, 2))).abs().max() < 0.02
    monkeypatch.setattr(decoding, "KEPT_PIXELS", 100 * 100)
    drawn = Image.new("L", (300, 200))
    drawn.paste(255, (0, 0, 150, 200))
    drawn.save(tmp_path / "mask.png")
    mask, resized = load_mask(tmp_path / "mask.png", tuple(image.shape[1:]))
    assert resized == (mode == "CMYK")
    assert mask.float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_a_large_picture_is_turned_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "KEPT_PIXELS", 100 * 100)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(200, 300).save(tmp_path / "a.jpg", exif=exif)
    assert (
        load_image(tmp_path / "a.jpg").shape[1:] == (100, 66) or load_image(tmp_path / "a.jpg").shape[1] > 66
    )


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2])
def test_a_tiff_that_is_cut_is_refused_or_gives_its_first_frame(tmp_path: Path, share: float) -> None:
    frames = [picture().rotate(angle) for angle in (0, 90)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:], compression="tiff_lzw")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(IceError, match=r"a\.tif"):
        load_image(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(data[: len(data) // 2])
    assert load_image(tmp_path / "a.tif").shape == (3, 40, 60)


def test_pictures_come_from_bytes_too(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert torch.equal(as_image(data)[0], load_image(tmp_path / "a.png"))
    with pytest.raises(IceError, match="cannot read the picture"):
        as_image(data[:100])
    assert uri_bytes(data_uri(picture()))[:3] == b"\xff\xd8\xff"
    for wrong in ("", "data:image/png;base64", "data:text/html;base64,AAAA", "data:image/png;base64,A!"):
        with pytest.raises(IceError, match="no data URI"):
            uri_bytes(wrong)


def test_the_first_frame_of_an_animation_is_taken_and_said(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.webp", save_all=True, append_images=[picture().rotate(180)], lossless=True)
    image, notes = load_image_with_notes(tmp_path / "a.webp")
    assert image[1, 0].mean() > 0.9
    assert "first of 2 frames" in notes[0]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 512), (512, 512)),
        ((1080, 1920), (384, 680)),
        ((3000, 2000), (624, 416)),
        ((64, 4096), (64, 4096)),
    ],
)
def test_the_working_size_keeps_area_and_aspect_in_multiples(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert working_size(*size, native_size=512, multiple=8) == expected


def test_extreme_aspects_keep_at_least_one_multiple() -> None:
    assert working_size(32, 32000, native_size=128, multiple=16)[0] == 16


def test_resizing_to_the_same_size_changes_no_bit_and_stays_in_range() -> None:
    image = torch.rand(3, 24, 40, generator=torch.Generator().manual_seed(0)).round()
    assert resize(image, (24, 40)) is image
    scaled = resize(image, (56, 64))
    assert scaled.shape == (3, 56, 64)
    assert scaled.min() >= 0
    assert scaled.max() <= 1


def test_masks_of_any_make_are_read_and_resizing_is_told(tmp_path: Path) -> None:
    inside = np.zeros((40, 60), np.uint8)
    inside[10:30, 20:50] = 1
    Image.fromarray(inside * 255).save(tmp_path / "grey.png")
    Image.fromarray(inside).save(tmp_path / "labels.png")
    Image.fromarray(inside.astype(bool)).save(tmp_path / "bits.png")
    alpha = Image.new("RGBA", (60, 40), (255, 255, 255, 0))
    alpha.putalpha(Image.fromarray(inside * 255))
    alpha.save(tmp_path / "alpha.png")
    for name in ("grey", "labels", "bits", "alpha"):
        mask, resized = load_mask(tmp_path / f"{name}.png", (40, 60))
        assert torch.equal(mask, torch.from_numpy(inside) > 0)
        assert not resized
    mask, resized = load_mask(tmp_path / "grey.png", (80, 120))
    assert resized
    assert torch.equal(mask, (torch.from_numpy(inside) > 0).repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_empty_and_vanishing_masks_are_refused(tmp_path: Path) -> None:
    Image.new("L", (60, 40)).save(tmp_path / "zero.png")
    with pytest.raises(IceError, match="all zero"):
        load_mask(tmp_path / "zero.png", (40, 60))
    dot = Image.new("L", (400, 400))
    dot.putpixel((1, 1), 255)
    dot.save(tmp_path / "dot.png")
    with pytest.raises(IceError, match="larger area"):
        load_mask(tmp_path / "dot.png", (40, 40))
    with pytest.raises(IceError, match="there is no picture"):
        load_mask(tmp_path / "absent.png", (40, 40))


def test_a_mask_scaled_up_and_down_again_is_the_same() -> None:
    mask = torch.rand(16, 24, generator=torch.Generator().manual_seed(1)) > 0.5
    assert torch.equal(resize_mask(resize_mask(mask, (37, 91)), (16, 24)), mask)


def test_png_round_trip_is_exact_at_eight_bits_and_carries_text(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (3, 33, 47), generator=torch.Generator().manual_seed(2)) / 255
    save_png(image, tmp_path / "a.png", {"prompt": "a photo of {ball.object}"})
    assert torch.equal(load_image(tmp_path / "a.png"), image)
    with Image.open(tmp_path / "a.png") as stored:
        assert stored.text["prompt"] == "a photo of {ball.object}"
    assert to_pil(torch.ones(5, 6, dtype=torch.bool)).getpixel((0, 0)) == 255


def test_thumbnails_are_small_data_uris() -> None:
    uri = data_uri(torch.rand(3, 1024, 512, generator=torch.Generator().manual_seed(3)))
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 60_000


def test_only_jpeg_and_png_have_a_media_type() -> None:
    assert media_type(b"\xff\xd8\xff\xe0") == "image/jpeg"
    assert media_type(b"\x89PNG\r\n\x1a\n") == "image/png"
    assert media_type(b"<svg onload='alert(1)'>") is None
