"""Pictures of a result: legible at any size, nothing blank, nothing cut off."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from ice_core.concepts import Concept
from ice_core.figures.pictures import Row, Tile, color_of, concept_row, contact_sheet, masked_crop, overlay
from ice_core.figures.plots import loss_plot, running_mean

RED = (255, 0, 0)


def scene(height: int = 64, width: int = 64) -> tuple[torch.Tensor, list[Concept]]:
    """A grey picture with two squares, the second one at the right border."""
    image = torch.full((3, height, width), 0.5)
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, height // 4 : height // 2, width // 8 : width // 3] = True
    masks[1, height // 2 :, width - width // 4 :] = True
    return image, [Concept("ball", "ball", masks[0], 0.91), Concept("ball-2", "ball", masks[1], 0.5)]


def rows(count: int, tiles: int, caption: str = "whole object") -> list[Row]:
    made = tuple(
        Tile(caption, Image.new("RGB", (128, 128), RED), "a {ball.color} color") for _ in range(tiles)
    )
    return [Row(f"ball-{i}", "score", color_of(i), made) for i in range(count)]


def inked(picture: Image.Image) -> float:
    """Share of pixels that are not white."""
    return float((np.asarray(picture) < 250).any(-1).mean())


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 64), (384, 384)), ((64, 128), (768, 384)), ((700, 500), (500, 700))]
)
def test_the_overlay_enlarges_small_pictures_and_keeps_large_ones(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert overlay(*scene(*size)).size == expected


def test_masks_are_tinted_outlined_and_tagged_and_the_rest_stays() -> None:
    image, concepts = scene()
    pixels = np.asarray(overlay(image, concepts))
    assert tuple(pixels[350, 20]) == (128, 128, 128)
    inside = pixels[140, 90].astype(int)
    assert inside[0] > inside[2] + 15
    for i in range(2):
        assert (pixels == color_of(i)).all(-1).sum() > 1000


def test_tags_do_not_cover_one_another() -> None:
    image, concepts = scene()
    same = [Concept(f"a{i}", "a", concepts[0].mask, 1.0) for i in range(4)]
    pixels = np.asarray(overlay(image, same))
    for i in range(4):
        assert (pixels == color_of(i)).all(-1).sum() > 600


def test_a_mask_of_another_size_lies_where_it_belongs() -> None:
    image, concepts = scene(640, 640)
    small = [Concept("ball", "ball", concepts[0].mask[::10, ::10], 1.0)]
    difference = np.abs(
        np.asarray(overlay(image, small)).astype(int) - np.asarray(overlay(image, concepts[:1])).astype(int)
    )
    assert (difference.max(-1) > 20).mean() < 0.03


def test_the_masked_crop_is_square_with_the_object_on_white() -> None:
    image, concepts = scene()
    crop = masked_crop(image, concepts[0])
    assert crop.width == crop.height
    pixels = np.asarray(crop)
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    assert tuple(pixels[crop.height // 2, crop.width // 2]) == (128, 128, 128)


def test_a_row_holds_every_tile_and_long_captions_stay_in_their_column() -> None:
    short, long = rows(1, 3)[0], rows(1, 3, "a very long caption " * 9)[0]
    assert concept_row(short, tile=100).size == concept_row(long, tile=100).size == (332, 212)
    gap = np.asarray(concept_row(long, tile=100))[40:, 100:116]
    assert (gap == 255).all()


def test_the_sheet_has_the_expected_size_and_is_not_blank() -> None:
    image, concepts = scene(128, 128)
    losses = {"denoising": [1 / (i + 1) for i in range(40)], "triplet": [0.0] * 40}
    sheet = contact_sheet(image, concepts, rows(2, 6), losses, 20, "two concepts", "seed 0")
    row = concept_row(rows(1, 6)[0])
    panel = (row.width - 32) // 7 * 2
    assert sheet.size == (row.width + 72, 72 + 84 + 30 + min(440, panel) + 2 * (34 + row.height))
    assert inked(sheet) > 0.4
    border = np.asarray(sheet)
    assert all((part == 255).all() for part in (border[:20], border[-20:], border[:, :20], border[:, -20:]))


@pytest.mark.parametrize("size", [(32, 1000), (1000, 32)])
def test_the_sheet_copes_with_extreme_aspects_one_axis_and_no_losses(size: tuple[int, int]) -> None:
    image, concepts = scene(*size)
    sheet = contact_sheet(image, concepts, rows(1, 4), {}, 5, "t" * 500, "s" * 500)
    assert 900 < sheet.width < 1600
    assert sheet.height < 1200
    assert inked(sheet) > 0.1


def test_the_loss_plot_has_the_size_that_was_asked_for_and_copes_with_gaps() -> None:
    losses = {"denoising": [0.5, 0.4, 0.3], "composition": [math.nan, 0.2, 0.1], "absent": [math.nan] * 3}
    plot = loss_plot(losses, 1, (500, 300))
    assert plot.size == (500, 300)
    assert inked(plot) > 0.02


def test_the_running_mean_is_centred_and_skips_what_is_no_number() -> None:
    assert running_mean([1, 2, 3, 4], 3) == [1.5, 2, 3, 3.5]
    assert running_mean([math.nan, 2, 4], 3) == [2, 3, 3]
    assert math.isnan(running_mean([math.nan], 3)[0])


def test_the_loss_plot_marks_refinement() -> None:
    losses = {"denoising": [1.0, 0.5, 0.4, 0.3, 0.2, 0.1], "prior": [float("nan")] * 4 + [0.5, 0.4]}
    plain, marked = loss_plot(losses, 2), loss_plot(losses, 2, refinement=4)
    assert plain.size == marked.size
    assert plain.tobytes() != marked.tobytes()
