"""The picture of what was read: every object, every axis, nothing cut off."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from ice_core.attributes.values import Candidate, Reading, Readings, said
from ice_core.concepts import Concept
from ice_core.figures.pictures import color_of
from ice_core.figures.reading_table import reading_table


def scene() -> tuple[torch.Tensor, list[Concept]]:
    image = torch.full((3, 64, 64), 0.5)
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 16:32, 8:24] = True
    masks[1, 32:, 48:] = True
    return image, [Concept("ball", "ball", masks[0], 1.0), Concept("vase", "vase", masks[1], 1.0)]


def material(weight: float, fits: bool = True) -> Reading:
    rest = (Candidate("glass", 0.2), Candidate("wood", 0.1))
    return Reading("material", (Candidate("metal", weight), *rest), "clip", fits)


def pixels_of(picture: Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == color).all(-1).sum())


def table(readings: Readings) -> Image.Image:
    image, concepts = scene()
    return reading_table(image, concepts, readings)


def test_bars_grow_with_the_probability() -> None:
    small, large = (pixels_of(table({"ball": {"material": material(w)}}), color_of(0)) for w in (0.3, 0.7))
    assert large > 1.5 * small


def test_what_does_not_fit_has_no_colored_bar() -> None:
    fitting, not_fitting = (
        pixels_of(table({"ball": {"material": material(0.4, fits)}}), color_of(0)) for fits in (True, False)
    )
    assert fitting > not_fitting + 200


def test_there_is_a_row_per_object_and_a_column_per_axis() -> None:
    one = table({"ball": {"material": material(0.7)}})
    axes = {
        "material": material(0.7),
        "color": said("color", "red"),
        "mood": Reading("mood", (), "clip", False),
    }
    three = table({"ball": axes, "vase": {"material": material(0.5)}})
    assert three.width > one.width + 300
    assert three.height == one.height
    border = np.asarray(three)[:, -20:]
    assert (border == 255).all()


def test_long_words_and_no_objects_are_drawn_too() -> None:
    long = Reading("a" * 80, (Candidate("w" * 200, 1.0),), "model")
    picture = table({"ball": {"long": long}})
    assert (np.asarray(picture)[:, -20:] == 255).all()
    empty = reading_table(torch.rand(3, 32, 32), [], {})
    assert (np.asarray(empty) < 250).any()
