"""What the model card's figures count."""

from __future__ import annotations

import pytest

from benchmarks.world_quality import strictly_between


@pytest.mark.parametrize(
    ("hues", "inside"),
    [
        ((30, 50, 60), True),
        ((350, 5, 20), True),
        ((30, 70, 60), False),
        ((30, 30, 60), False),
        ((327.7, 328.1, 326.3), False),
    ],
)
def test_a_hue_lies_between_two_in_their_order_only(hues: tuple[float, float, float], inside: bool) -> None:
    assert strictly_between(*hues) is inside
