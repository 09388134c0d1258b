"""Reading with the denoiser: one whose errors are known, and the toy."""

from __future__ import annotations

import pytest
import torch
from fakes import FakeBackbone
from knowing import Knowing
from training_runs import scene

from ice_core.attributes.denoising_reader import (
    ModelReadingConfig,
    Trials,
    draw_trials,
    error_weights,
    errors,
    read_with_model,
)
from ice_core.attributes.values import Axis
from ice_core.errors import IceError
from ice_core.model.backbone import Prompt, TextFeatures

COLOR = Axis("color", ("green", "red", "blue"))


def test_the_value_that_denoises_best_is_read() -> None:
    concepts = scene()
    readings = read_with_model(
        Knowing(concepts.image, "red"),
        concepts,
        [COLOR, Axis("mood2")],
        None,
        torch.Generator().manual_seed(0),
    )
    for reading in readings.values():
        assert reading["color"].value == "red"
        assert reading["color"].reader == "model"
        assert not reading["mood2"].fits


def test_long_dictionaries_are_thinned_out_first() -> None:
    concepts = scene("ball")
    backbone = Knowing(concepts.image, "red")
    axis = Axis("color", (*(f"shade{i}" for i in range(20)), "red"))
    config = ModelReadingConfig(noises=10, first_noises=2, survivors=3, batch=5)
    reading = read_with_model(backbone, concepts, [axis], config, torch.Generator().manual_seed(0))
    (read,) = (found["color"] for found in reading.values())
    assert read.value == "red"
    assert backbone.passes == 21 * 2 + 3 * 8
    assert read.candidates[3].weight == 0


def test_the_same_generator_reads_the_same() -> None:
    config = ModelReadingConfig(noises=4, first_noises=2)
    runs = [
        read_with_model(FakeBackbone(), scene(), [COLOR], config, torch.Generator().manual_seed(5))
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


def test_errors_are_masked_means_of_each_pair() -> None:
    backbone, concepts = FakeBackbone(), scene()
    latent = backbone.encode_image(concepts.image[None])
    config = ModelReadingConfig(noises=3, first_noises=2)
    trials = draw_trials(backbone, latent, config, torch.Generator().manual_seed(0))
    text = backbone.encode_prompts([Prompt(("red ball",)), Prompt(("blue ball",))])
    mask = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = torch.zeros(2, 3)
    for v in range(2):
        for n in range(3):
            one = TextFeatures(text.context[v : v + 1], text.pooled[v : v + 1], text.columns[v : v + 1])
            out = backbone.predict(trials.noisy[n : n + 1], trials.timesteps[n : n + 1], one)
            weights = mask.expand_as(out)
            expected[v, n] = (weights * (out - trials.target[n : n + 1]) ** 2).sum() / weights.sum()
    torch.testing.assert_close(errors(backbone, trials, mask, text, 4), expected)


def test_trials_cover_the_range_evenly() -> None:
    backbone = FakeBackbone()
    config = ModelReadingConfig(noises=16, earliest=0.25, latest=0.75)
    trials = draw_trials(backbone, torch.zeros(1, 4, 8, 8), config, torch.Generator().manual_seed(0))
    assert isinstance(trials, Trials)
    ordered = trials.timesteps.sort().values
    assert ordered[0] >= 249
    assert ordered[-1] <= 750
    assert ordered.diff().max() <= 2 * 999 * 0.5 / 16 + 1
    assert not torch.equal(ordered, trials.timesteps)


def test_weights_are_a_softmax_of_paired_differences_by_their_standard_error() -> None:
    found = torch.rand(4, 12, generator=torch.Generator().manual_seed(2)) + torch.tensor(
        [[0.3], [0], [0.1], [0.5]]
    )
    best = int(found.mean(1).argmin())
    ratio = []
    for row in found:
        difference = row - found[best]
        error = difference.std().item() / 12**0.5
        ratio.append(0.0 if error == 0 else -difference.mean().item() / error)
    torch.testing.assert_close(error_weights(found), torch.tensor(ratio).softmax(0), atol=1e-5, rtol=1e-4)


def test_what_a_noise_costs_every_value_alike_says_nothing() -> None:
    found = torch.rand(3, 10, generator=torch.Generator().manual_seed(3))
    shared = 100 * torch.rand(10, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(error_weights(found + shared), error_weights(found), atol=1e-3, rtol=1e-3)


def test_values_that_denoise_alike_share_the_weight() -> None:
    assert error_weights(torch.ones(4, 6)).tolist() == [0.25] * 4


@pytest.mark.parametrize(
    "settings",
    [{"noises": 4}, {"first_noises": 1}, {"survivors": 1}, {"batch": 0}, {"earliest": 0.9}, {"latest": 1.5}],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(IceError, match=next(iter(settings))):
        ModelReadingConfig(**settings)  # type: ignore[arg-type]
