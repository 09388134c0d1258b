"""What is put together: two sources, and large results, at any width."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ice_core.figures.compositions import PLAIN, Composition, Part, composition_panel

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def composition(caption: str = "the cube, in the ball's color", word: bool = False) -> Composition:
    ball, cube, both = (Image.new("RGB", (64, 64), color) for color in (RED, BLUE, GREEN))
    thing = Part("cube", "a cube", None, PLAIN) if word else Part("cube", "the cube", cube, (1, 2, 3))
    source = Part("ball", "color of the ball", ball, (3, 2, 1))
    return Composition(caption, "a photo of a {ball.color} {cube.object}", source, thing, (both,) * 3)


@pytest.mark.parametrize("width", [1224, 1472, 3000])
def test_results_stand_large_to_the_right_of_their_sources(width: int) -> None:
    panel = composition_panel(composition(), width)
    assert panel.width == width
    pixels = np.asarray(panel)
    places = [(pixels == color).all(-1).any(0).nonzero()[0] for color in (RED, BLUE, GREEN)]
    assert places[0].max() < places[1].min()
    assert places[1].max() < places[2].min()
    assert (pixels == GREEN).all(-1).sum() > 3 * 160**2


def test_a_plain_word_takes_the_place_of_a_second_source() -> None:
    shown, word = composition_panel(composition(), 1472), composition_panel(composition(word=True), 1472)
    assert shown.size == word.size
    assert not (np.asarray(word) == BLUE).all(-1).any()


def test_long_captions_are_cut() -> None:
    panel = np.asarray(composition_panel(composition("a very long caption " * 30), 1224))
    assert (panel[:, -3:] == 255).all() or (panel[:40, -3:] == 255).all()
    assert panel.shape == np.asarray(composition_panel(composition(), 1224)).shape
