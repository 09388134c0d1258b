"""Plain textual inversion, and the step that all trainings share."""

from __future__ import annotations

import pytest
import torch
from fakes import FakeBackbone
from training_runs import run, scene

from ice_core.model.backbone import Prompt, Token
from ice_core.model.noising import draw_noise
from ice_core.training import TrainingConfig
from ice_core.training.descent import adamw, row_sizes, trainable


def test_plain_inversion_learns_a_token_per_object_of_the_whole_picture() -> None:
    config = TrainingConfig(steps=600, learning_rate=6.5e-4, method="inversion")
    steps, learned = run(scene("toy ball", "cube"), config)
    totals = torch.tensor([step.losses["total"] for step in steps])
    assert len(totals) == 600
    assert totals[-200:].mean() < totals[:200].mean()
    assert set(learned.tokens) == {"toy-ball-0.object", "cube-1.object"}
    assert learned.concepts[0].object.rows["clip_l"].shape == (1, 16)


def test_its_loss_is_the_noise_s_mean_squared_error() -> None:
    """The first step, written down once more."""
    backbone, concepts = FakeBackbone(), scene("ball")
    config = TrainingConfig(steps=1, method="inversion", templates=("a photo of a {}",))
    step = run(concepts, config)[0][0]
    rng = torch.Generator().manual_seed(0)
    torch.randint(1, (), generator=rng)
    mirrored = bool(torch.rand(1, generator=rng) < config.flip_probability)
    timestep = torch.randint(1000, (1,), generator=rng)
    noise = draw_noise((1, 4, 8, 8), 0, rng)
    image = concepts.image.flip(-1) if mirrored else concepts.image
    signal = backbone.alphas_cumprod[timestep].view(1, 1, 1, 1)
    noisy = signal.sqrt() * backbone.encode_image(image[None]) + (1 - signal).sqrt() * noise
    output = backbone.predict(noisy, timestep, backbone.encode_prompts([Prompt(("a photo of a ball",))]))
    assert step.losses["total"] == pytest.approx(float((output - noise).square().mean()), rel=1e-5)


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
