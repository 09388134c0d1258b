"""What training refuses before it begins."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from fakes import FakeBackbone
from torch import Tensor
from training_runs import SHORT, scene

from ice_core.errors import IceError
from ice_core.training import (
    TrainingConfig,
    train,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": ()}, "no axes"),
        ({"axes": ("",)}, "'' is not one plain word"),
        ({"axes": ("color", "color")}, "'color' is named twice"),
        ({"axes": ("object",)}, "'object' is the name of another"),
        ({"axes": ("two words",)}, "'two words' is not one plain word"),
        ({"steps": 1}, "steps is 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"batch": 0}, "batch is 0"),
        ({"alignment_weight": -1.0}, "alignment_weight is -1"),
        ({"flip_probability": 1.5}, "flip_probability is 1.5"),
        ({"templates": ("a photo",)}, "'a photo' needs"),
        ({"templates": ()}, "no templates"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(IceError, match=message):
        TrainingConfig(**change)  # type: ignore[arg-type]


def test_an_axis_of_several_pieces_is_refused_with_their_number() -> None:
    class Splitting(FakeBackbone):
        def word_rows(self, text: str) -> dict[str, Tensor]:
            return super().word_rows(text.replace("iridescence", "irid esc ence"))

    with pytest.raises(IceError, match="'iridescence' is 3 pieces to the tokenizer of clip_l"):
        train(Splitting(), scene(), TrainingConfig(axes=("color", "iridescence"), method="paper"))


def test_concepts_that_cannot_be_learned_are_refused_before_any_work() -> None:
    good = scene()
    ball, cube = good.concepts
    empty = dataclasses.replace(ball, mask=torch.zeros_like(ball.mask))
    small = dataclasses.replace(ball, mask=ball.mask[:32])
    for concepts, message in (
        ((), "nothing to learn"),
        ((empty, cube), "mask of 'ball-0' is empty"),
        ((small,), "mask of 'ball-0' is 64 x 32, the picture 64 x 64"),
        ((ball, dataclasses.replace(cube, key="ball-0")), "two objects have the key 'ball-0'"),
        ((dataclasses.replace(ball, label=" "),), "'ball-0' has no label"),
    ):
        with pytest.raises(IceError, match=message):
            train(FakeBackbone(), dataclasses.replace(good, concepts=concepts), SHORT)
    with pytest.raises(IceError, match="60 x 64, but fake takes sides that are multiples of 8"):
        train(FakeBackbone(), dataclasses.replace(good, image=good.image[..., :60]), SHORT)
