"""What was found in a picture: legible at any size, nothing blank, nothing cut off."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ice_core.concepts import Concept
from ice_core.figures.pictures import color_of, masked_crop, overlay


def scene(height: int = 64, width: int = 64) -> tuple[torch.Tensor, list[Concept]]:
    """A grey picture with two squares, the second one at the right border."""
    image = torch.full((3, height, width), 0.5)
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, height // 4 : height // 2, width // 8 : width // 3] = True
    masks[1, height // 2 :, width - width // 4 :] = True
    return image, [Concept("ball", "ball", masks[0], 0.91), Concept("ball-2", "ball", masks[1], 0.5)]


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
