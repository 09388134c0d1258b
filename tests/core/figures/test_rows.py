"""One object's picture row: its tiles, and below them its properties on other objects."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ice_core.evaluation.quality import Grade
from ice_core.figures.pictures import color_of
from ice_core.figures.rows import GRADES, Row, Tile, Transfer, concept_row

RED, BLUE = (255, 0, 0), (0, 0, 255)


def row(tiles: int = 3, transfers: int = 0, caption: str = "whole object", grade: Grade | None = None) -> Row:
    red, blue = (Image.new("RGB", (64, 64), color) for color in (RED, BLUE))
    prompt = "a photo of a {ball.color} cube"
    return Row(
        "ball",
        "score",
        color_of(0),
        tuple(Tile(caption, red, prompt) for _ in range(tiles)),
        tuple(Transfer(caption, red, blue, prompt, grade) for _ in range(transfers)),
    )


def pixels_of(picture: Image.Image, color: tuple[int, int, int]) -> np.ndarray:
    return (np.asarray(picture) == color).all(-1)


def test_a_row_holds_every_tile_and_long_captions_stay_in_their_column() -> None:
    short, long = row(), row(caption="a very long caption " * 9)
    assert concept_row(short, tile=100).size == concept_row(long, tile=100).size == (332, 212)
    gap = np.asarray(concept_row(long, tile=100))[40:, 100:116]
    assert (gap == 255).all()


def test_a_property_on_another_object_is_large_beside_the_small_picture_without_it() -> None:
    plain, shown = concept_row(row(tiles=6)), concept_row(row(tiles=6, transfers=3))
    assert shown.width == plain.width
    below = shown.crop((0, plain.height, shown.width, shown.height))
    large, little = pixels_of(below, RED), pixels_of(below, BLUE)
    assert large.sum() > 3 * 0.9 * 230**2
    assert 3 * 0.9 * 110**2 < little.sum() < large.sum() / 4
    assert little.any(0).argmax() < large.any(0).argmax()


def test_more_properties_than_fit_beside_one_another_go_on_another_line() -> None:
    one, two = (concept_row(row(tiles=6, transfers=n)) for n in (3, 4))
    assert two.width == one.width
    assert two.height > one.height + 232


@pytest.mark.parametrize("grade", list(GRADES))
def test_a_mark_is_there_where_somebody_judged_and_does_not_push_the_caption_out(grade: Grade) -> None:
    color = GRADES[grade][1]
    assert not pixels_of(concept_row(row(6, 1)), color).any()
    marked = pixels_of(concept_row(row(6, 1, "a very long caption " * 9, grade)), color)
    assert marked.sum() > 300
    assert marked.any(0).nonzero()[0].max() < 2 * 248 + 112 + 40
