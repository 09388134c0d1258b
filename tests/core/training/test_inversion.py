"""Plain textual inversion, and the step that all trainings share."""

from __future__ import annotations

import pytest
import torch
from fakes import FakeBackbone
from training_runs import Breaking, scene

from ice_core.errors import IceError
from ice_core.model.backbone import Token
from ice_core.training import (
    InversionConfig,
    Inverted,
    StepDone,
    invert,
)
from ice_core.training.descent import adamw, row_sizes, trainable


def test_plain_inversion_learns_one_token_of_the_whole_picture() -> None:
    backbone = FakeBackbone()
    before = {name: weight.clone() for name, weight in backbone.weights.items()}
    *steps, last = invert(
        backbone, scene().image, "toy ball", InversionConfig(steps=300, learning_rate=6.5e-4)
    )
    assert isinstance(last, Inverted)
    totals = torch.tensor([s.losses["total"] for s in steps if isinstance(s, StepDone)])
    assert len(totals) == 300
    assert totals[-100:].mean() < totals[:100].mean()
    assert last.token.rows["clip_l"].shape == (1, 16)
    assert all(torch.equal(backbone.weights[name], before[name]) for name in before)
    *_, again = invert(backbone, scene().image, "toy ball", InversionConfig(steps=300, learning_rate=6.5e-4))
    assert isinstance(again, Inverted)
    assert torch.equal(again.token.rows["clip_l"], last.token.rows["clip_l"])


def test_plain_inversion_refuses_what_it_cannot_do() -> None:
    image = scene().image
    with pytest.raises(IceError, match="60 x 64"):
        invert(FakeBackbone(), image[..., :60], "ball")
    with pytest.raises(IceError, match="label is empty"):
        invert(FakeBackbone(), image, " ")
    with pytest.raises(IceError, match="steps is 0"):
        InversionConfig(steps=0)
    with pytest.raises(IceError, match="diverged at step 2 of 5"):
        list(invert(Breaking(1), image, "ball", InversionConfig(steps=5)))


def test_a_step_is_as_long_as_the_model_s_words_make_it() -> None:
    class Wider(FakeBackbone):
        def word_rows(self, text: str) -> dict[str, torch.Tensor]:
            return {name: 3 * rows for name, rows in super().word_rows(text).items()}

    plain, wider = row_sizes(FakeBackbone()), row_sizes(Wider())
    assert wider["clip_l"] == pytest.approx(3 * plain["clip_l"])
    token = trainable(Token("t", {"clip_l": torch.ones(1, 16)}), torch.device("cpu"))
    optimizer = adamw([token], 1e-3, 0.01, {"clip_l": 3.0})
    token.rows["clip_l"].grad = torch.full((1, 16), 0.5)
    optimizer.step()
    # Adam's first step has the length of the rate; decay takes off what it would at size 1.
    torch.testing.assert_close(token.rows["clip_l"].detach(), torch.full((1, 16), 1 - 1e-5 - 3e-3))


def test_words_of_no_size_leave_the_rate_as_it_is() -> None:
    class Silent(FakeBackbone):
        def word_rows(self, text: str) -> dict[str, torch.Tensor]:
            return {name: 0 * rows for name, rows in super().word_rows(text).items()}

    assert row_sizes(Silent()) == {"clip_l": 1.0}
