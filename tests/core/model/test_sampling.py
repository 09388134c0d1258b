"""(SDE-)DPM-Solver++(2M) on models whose answer is known, and beside diffusers' own."""

from __future__ import annotations

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from fakes import FakeBackbone
from torch import Tensor

from ice_core.errors import IceError
from ice_core.model.backbone import Prompt, TextFeatures
from ice_core.model.sampling import (
    SamplingConfig,
    first_noise,
    guided,
    predicted_original,
    sample,
    timesteps_for,
)


class Oracle(FakeBackbone):
    """Knows the clean latent, so that its noise prediction is exact."""

    def __init__(self, clean: Tensor, prediction: str = "epsilon") -> None:
        super().__init__()
        self.clean, self.prediction = clean, prediction  # type: ignore[assignment]

    def predict(
        self, noisy: Tensor, timesteps: Tensor, text: TextFeatures, recorder=None, lora=None
    ) -> Tensor:
        alpha = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noise = (noisy - alpha.sqrt() * self.clean) / (1 - alpha).sqrt()
        if self.prediction == "v_prediction":
            return alpha.sqrt() * noise - (1 - alpha).sqrt() * self.clean
        return noise


class GaussianData(FakeBackbone):
    """The exact noise prediction for data drawn from N(0.3, 0.5^2)."""

    mean, spread = 0.3, 0.5

    def predict(
        self, noisy: Tensor, timesteps: Tensor, text: TextFeatures, recorder=None, lora=None
    ) -> Tensor:
        alpha = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        variance = alpha * self.spread**2 + 1 - alpha
        return (1 - alpha).sqrt() * (noisy - alpha.sqrt() * self.mean) / variance

    def decode_latent(self, latents: Tensor) -> Tensor:
        self.drawn = latents
        return super().decode_latent(latents)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_perfect_prediction_is_reached_exactly(prediction: str):
    clean = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    backbone = Oracle(clean, prediction)
    config = SamplingConfig(steps=7, guidance=1.0)
    picture = sample(backbone, [Prompt(("ball",))], config, torch.Generator().manual_seed(1))
    torch.testing.assert_close(picture, backbone.decode_latent(clean[None]), atol=2e-4, rtol=0)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_samples_of_a_gaussian_have_its_moments(eta: float):
    backbone = GaussianData()
    config = SamplingConfig(steps=30, guidance=1.0, eta=eta)
    sample(backbone, [Prompt(("x",))] * 64, config, torch.Generator().manual_seed(0), batch=64)
    assert backbone.drawn.mean().item() == pytest.approx(0.3, abs=0.02)
    assert backbone.drawn.std().item() == pytest.approx(0.5, abs=0.03)


def test_first_noise_is_standard_normal_but_for_its_mean():
    noise = first_noise((8, 4, 16, 16), torch.Generator().manual_seed(0))
    plain = torch.randn(8, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(noise.mean((2, 3)), torch.zeros(8, 4), atol=1e-6, rtol=0)
    torch.testing.assert_close(noise - noise[..., :1, :1], plain - plain[..., :1, :1])


def test_pictures_start_from_the_first_noise():
    class Still(FakeBackbone):
        def predict(self, noisy, timesteps, text, recorder=None, lora=None):
            self.seen = noisy
            return torch.zeros_like(noisy)

    backbone = Still()
    config = SamplingConfig(steps=1, guidance=1.0, eta=0.0)
    sample(backbone, [Prompt(("x",))] * 3, config, torch.Generator().manual_seed(0))
    expected = first_noise(tuple(backbone.seen.shape), torch.Generator().manual_seed(0))
    torch.testing.assert_close(backbone.seen, expected)


def test_second_order_steps_beat_their_number():
    """Against 400 steps, 20 must be far closer than 5: the multistep correction is in effect."""
    backbone = GaussianData()

    def drawn(steps: int) -> Tensor:
        config = SamplingConfig(steps=steps, guidance=1.0, eta=0.0)
        sample(backbone, [Prompt(("x",))], config, torch.Generator().manual_seed(0))
        return backbone.drawn

    exact = drawn(400)
    assert (drawn(20) - exact).abs().max() < 0.3 * (drawn(5) - exact).abs().max()


@pytest.mark.parametrize(("eta", "kind"), [(0.0, "dpmsolver++"), (1.0, "sde-dpmsolver++")])
def test_steps_are_those_of_diffusers(eta: float, kind: str):
    """The same data, noise and timesteps through `DPMSolverMultistepScheduler`."""
    backbone, steps = GaussianData(), 12
    config = SamplingConfig(steps=steps, guidance=1.0, eta=eta)
    sample(backbone, [Prompt(("x",))], config, torch.Generator().manual_seed(0))
    theirs = DPMSolverMultistepScheduler(
        trained_betas=(
            1 - backbone.alphas_cumprod / torch.cat([torch.ones(1), backbone.alphas_cumprod[:-1]])
        ),
        algorithm_type=kind,
        timestep_spacing="trailing",
        final_sigmas_type="zero",
        lower_order_final=False,
        euler_at_final=True,
    )
    theirs.set_timesteps(steps)
    assert theirs.timesteps.tolist() == timesteps_for(steps, len(backbone.alphas_cumprod))
    rng = torch.Generator().manual_seed(0)
    x = first_noise((1, *backbone.drawn.shape[1:]), rng)
    later = torch.Generator().manual_seed(int(x.flatten()[:2].view(torch.int64)))
    for t in theirs.timesteps:
        predicted = backbone.predict(x, t[None], backbone.encode_prompts([Prompt(("x",))]))
        last = int(t) == int(theirs.timesteps[-1])
        added = torch.zeros_like(x) if last or not eta else torch.randn(x.shape[1:], generator=later)[None]
        x = theirs.step(predicted, t, x, variance_noise=added).prev_sample
    torch.testing.assert_close(backbone.drawn, x, atol=1e-4, rtol=1e-4)


def test_noise_of_a_picture_does_not_depend_on_the_batch():
    prompts = [Prompt((word,)) for word in ("ball", "cube", "cone")]
    config = SamplingConfig(steps=3)
    one = sample(FakeBackbone(), prompts, config, torch.Generator().manual_seed(0), batch=1)
    all_at_once = sample(FakeBackbone(), prompts, config, torch.Generator().manual_seed(0), batch=3)
    torch.testing.assert_close(one, all_at_once, atol=1e-5, rtol=1e-5)


def test_guidance_moves_the_picture_and_sizes_may_differ_from_the_models():
    prompt, rng = [Prompt(("ball",))], torch.Generator()
    plain = sample(FakeBackbone(), prompt, SamplingConfig(4, 1.0), rng.manual_seed(0), size=(64, 96))
    guided = sample(FakeBackbone(), prompt, SamplingConfig(4, 6.0), rng.manual_seed(0), size=(64, 96))
    assert plain.shape == guided.shape == (1, 3, 64, 96)
    assert not torch.equal(plain, guided)


def test_timesteps_fall_from_the_noisiest_and_stay_in_range():
    for steps in (1, 7, 20, 1000):
        times = timesteps_for(steps, 1000)
        assert times[0] == 999
        assert len(times) == steps == len(set(times))
        assert times == sorted(times, reverse=True)
        assert times[-1] >= 0


def test_original_is_recovered_from_noise_and_from_velocity():
    rng = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1, 4, 4, 4, generator=rng)
    alpha = torch.tensor(0.37)
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
    torch.testing.assert_close(predicted_original(noisy, noise, alpha), clean, atol=1e-5, rtol=1e-4)
    again = predicted_original(noisy, velocity, alpha, "v_prediction")
    torch.testing.assert_close(again, clean, atol=1e-5, rtol=1e-4)


def test_rescaling_brings_back_the_spread_of_the_prediction_with_the_prompt():
    given, free = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = guided(given, free, SamplingConfig(guidance=5.0, rescale=0.0))
    torch.testing.assert_close(plain, free + 5 * (given - free))
    whole = guided(given, free, SamplingConfig(guidance=5.0, rescale=1.0))
    torch.testing.assert_close(whole.std((1, 2, 3)), given.std((1, 2, 3)))
    half = guided(given, free, SamplingConfig(guidance=5.0, rescale=0.5))
    torch.testing.assert_close(half, (plain + whole) / 2)
    assert (plain.std((1, 2, 3)) > given.std((1, 2, 3))).all()


@pytest.mark.parametrize(
    ("steps", "guidance", "rescale", "eta"),
    [
        (0, 5, 0.7, 1),
        (10, 0.5, 0.7, 1),
        (10, 5, 1.1, 1),
        (10, 5, -0.1, 1),
        (10, 5, 0.7, 1.1),
        (10, 5, 0.7, -0.1),
    ],
)
def test_impossible_settings_are_refused(steps: int, guidance: float, rescale: float, eta: float):
    with pytest.raises(IceError):
        SamplingConfig(steps, guidance, rescale, eta)


def test_prompts_of_one_noise_start_alike_and_differ_by_what_they_say_alone():
    ball, cube = Prompt(("ball",)), Prompt(("cube",))
    config = SamplingConfig(steps=2)

    def drawn(prompts: list[Prompt], noises: list[int] | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return sample(FakeBackbone(), prompts, config, generator, batch=2, noises=noises)

    own = drawn([ball, ball, cube])
    chosen = drawn([ball, cube, ball, ball], [1, 2, 0, 1])
    torch.testing.assert_close(chosen[:3], own[[1, 2, 0]])
    assert torch.equal(chosen[0], chosen[3])
    assert not torch.equal(own[0], own[1])
