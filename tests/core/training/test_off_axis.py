"""The off-axis anchor: which pictures it asks of the model, and what it holds against them."""

from __future__ import annotations

import torch
from fakes import FakeBackbone

from ice_core.model.backbone import Token
from ice_core.training.off_axis import draw_foreign, off_axis_loss

WORDS = {"ball": {"ball.color": "red", "ball.material": "metal"}, "cube": {"cube.color": "green"}}
LABELS = {"ball": "ball", "cube": "cube", "cone": "cone"}


def test_every_property_is_drawn_on_the_pictures_other_things_in_turn() -> None:
    drawn = draw_foreign(FakeBackbone(), WORDS, LABELS, 3, seed=0)
    assert [(one.key, one.name, one.word, one.thing) for one in drawn] == [
        *[("ball", "ball.color", "red", thing) for thing in ("cube", "cone", "cube")],
        *[("ball", "ball.material", "metal", thing) for thing in ("cube", "cone", "cube")],
        *[("cube", "cube.color", "green", thing) for thing in ("ball", "cone", "ball")],
    ]
    again = draw_foreign(FakeBackbone(), WORDS, LABELS, 3, seed=0)
    assert all(torch.equal(one.latents, other.latents) for one, other in zip(drawn, again, strict=True))
    other = draw_foreign(FakeBackbone(), WORDS, LABELS, 3, seed=1)
    assert not torch.equal(drawn[0].latents, other[0].latents)


def test_an_object_alone_is_its_own_other_thing_and_without_words_there_is_nothing() -> None:
    (one,) = draw_foreign(FakeBackbone(), {"ball": {"ball.color": "red"}}, {"ball": "ball"}, 1, seed=0)
    assert one.thing == "ball"
    assert draw_foreign(FakeBackbone(), {"ball": {}}, {"ball": "ball"}, 2, seed=0) == ()


def test_a_token_that_is_its_word_costs_nothing_and_another_is_led_back() -> None:
    backbone = FakeBackbone()
    drawn = draw_foreign(backbone, {"ball": {"ball.color": "red"}}, LABELS, 1, seed=0)
    noise = torch.randn(1, *drawn[0].latents.shape, generator=torch.Generator().manual_seed(0))
    at = torch.tensor([500])

    def loss(word: str) -> tuple[float, torch.Tensor]:
        rows = {k: v.detach().clone().requires_grad_() for k, v in backbone.word_rows(word).items()}
        value = off_axis_loss(
            backbone, drawn, {"ball.color": Token("ball.color", rows)}, at, noise, backbone.alphas_cumprod
        )
        value.backward()
        return value.item(), rows["clip_l"].grad

    assert loss("red")[0] == 0
    value, gradient = loss("green")
    assert value > 0
    towards = backbone.word_rows("red")["clip_l"] - backbone.word_rows("green")["clip_l"]
    assert (gradient * towards).sum() < 0
