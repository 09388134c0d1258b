"""The contact sheet: everything on one page, whatever the picture's shape and the number of tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ice_core.concepts import Concept
from ice_core.figures.compositions import Composition, Part, composition_panel
from ice_core.figures.pictures import color_of
from ice_core.figures.rows import Row, Tile, concept_row
from ice_core.figures.sheet import contact_sheet

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


def test_what_is_put_together_comes_before_its_parts() -> None:
    image, concepts = scene(128, 128)
    red = Image.new("RGB", (64, 64), RED)
    part = Part("ball", "the ball", red, RED)
    composition = Composition("the cube, in the ball's color", "a photo", part, part, (red,) * 3)
    given = (image, concepts, rows(2, 6), {}, 5, "title", "settings")
    plain, sheet = contact_sheet(*given), contact_sheet(*given, compositions=[composition] * 2)
    assert sheet.width == plain.width
    panel = composition_panel(composition, sheet.width - 72)
    assert sheet.height > plain.height + 2 * panel.height
    below = sum(34 + row.height for row in map(concept_row, rows(2, 6))) + 36
    assert np.array_equal(np.asarray(sheet)[-below + 34 :], np.asarray(plain)[-below + 34 :])
    above = np.asarray(sheet)[plain.height - below : -below]
    assert (above == RED).all(-1).sum() > 2 * 3 * 160**2
    assert (np.asarray(sheet)[-20:] == 255).all()
