"""How a property came out: counted on pictures whose answer is known."""

from __future__ import annotations

import pytest
import torch
from judges import COLORS, ColorBlindToAllElse
from torch import Tensor

from ice_core.evaluation.quality import PICTURES, WEAK, WELL, grade_of, quality

MODEL = ColorBlindToAllElse()


def pictures(*colors: str) -> Tensor:
    """Plain ones, [B, 3, 8, 8]."""
    return torch.stack([torch.eye(3)[COLORS.index(c)][:, None, None].expand(3, 8, 8) for c in colors])


@pytest.mark.parametrize(
    ("shown", "share", "grade"),
    [
        (("red",) * 4, 1.0, "well"),
        (("red", "red", "red", "blue"), 0.75, "well"),
        (("red", "blue", "red", "green"), 0.5, "weak"),
        (("blue", "red", "green", "green"), 0.25, "not"),
        (("blue",) * 4, 0.0, "not"),
    ],
)
def test_the_share_of_pictures_that_show_the_value_decides(
    shown: tuple[str, ...], share: float, grade: str
) -> None:
    result = quality(MODEL, pictures(*shown), "color", "red", "cube", COLORS)
    assert result is not None
    assert (result.axis, result.value, result.thing) == ("color", "red", "cube")
    assert (result.share, result.grade) == (share, grade)


def test_the_margin_is_positive_where_the_value_wins_and_negative_where_another_does() -> None:
    margins = [quality(MODEL, pictures(c), "color", "red", "cube", COLORS) for c in ("red", "green")]
    right, wrong = (m.margin for m in margins if m is not None)
    assert right > 0.9
    assert wrong < -0.9


def test_a_value_that_its_axis_does_not_list_is_held_against_those_that_it_does() -> None:
    result = quality(MODEL, pictures("blue"), "color", "crimson", "cube", COLORS)
    assert result is not None
    assert result.grade == "not"


def test_where_there_is_nothing_else_it_could_be_nothing_is_said() -> None:
    assert quality(MODEL, pictures("red"), "color", "red", "cube", ("red",)) is None
    assert quality(MODEL, pictures("red"), "color", "red", "cube", ()) is None


def test_the_thresholds_are_shares_that_so_few_pictures_can_have() -> None:
    assert {WELL, WEAK} <= {n / PICTURES for n in range(PICTURES + 1)}
    assert [grade_of(x) for x in (0.0, WEAK - 0.01, WEAK, WELL - 0.01, WELL, 1.0)] == [
        "not", "not", "weak", "weak", "well", "well"
    ]  # fmt: skip
