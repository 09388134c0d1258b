"""Pictures from prompts: (SDE-)DPM-Solver++(2M) with classifier-free guidance, on any Backbone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ice_core.errors import IceError
from ice_core.model.backbone import Backbone, Prompt, TextFeatures
from ice_core.model.lora import Lora


@dataclass(frozen=True)
class SamplingConfig:
    """steps: denoising steps; guidance: scale of classifier-free guidance, 1 turns it off; rescale: how far,
    in 0..1, the guided prediction is brought back to the spread of the one with the prompt (Lin et al. 2024,
    "Common Diffusion Noise Schedules and Sample Steps are Flawed", eq. 14-16); eta: how much noise is taken
    and put in anew on the way, from 0 (none, the ordinary differential equation) to 1 (the stochastic one).

    New noise makes up for errors of earlier steps, but needs some steps: below 20 take eta 0. Raises IceError
    for a value that cannot work.
    """

    steps: int = 30
    guidance: float = 5.0
    rescale: float = 0.7
    eta: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise IceError(f"sampling takes at least 1 step, not {self.steps}")
        if self.guidance < 1:
            raise IceError(f"guidance must be 1 (off) or more, not {self.guidance}")
        if not 0 <= self.rescale <= 1:
            raise IceError(f"rescale must be in 0..1, not {self.rescale}")
        if not 0 <= self.eta <= 1:
            raise IceError(f"eta must be in 0..1, not {self.eta}")


def predicted_original(
    noisy: Tensor, predicted: Tensor, alpha: Tensor, prediction: str = "epsilon"
) -> Tensor:
    """x_0 from x_t and the model's output: (x_t - sqrt(1 - a) eps) / sqrt(a), or
    sqrt(a) x_t - sqrt(1 - a) v (Salimans & Ho 2022, eq. 8 ff.)."""
    if prediction == "v_prediction":
        return alpha.sqrt() * noisy - (1 - alpha).sqrt() * predicted
    return (noisy - (1 - alpha).sqrt() * predicted) / alpha.sqrt()


def guided(given: Tensor, free: Tensor, config: SamplingConfig) -> Tensor:
    """The prediction that is followed, of those with and without the prompt, all [B, C, h, w].

    Guidance raises contrast and saturation beyond what the model was asked for, so that a learned shade does
    not come out; the rescaling takes that back.
    """
    predicted = free + config.guidance * (given - free)
    if not config.rescale:
        return predicted
    spread = given.std((1, 2, 3), keepdim=True) / predicted.std((1, 2, 3), keepdim=True)
    return predicted * (config.rescale * spread + 1 - config.rescale)


def timesteps_for(steps: int, train_steps: int) -> list[int]:
    """`steps` timesteps from the noisiest one down, evenly spaced, ending above 0 ("trailing")."""
    return [round(train_steps - i * train_steps / steps) - 1 for i in range(steps)]


def first_noise(shape: tuple[int, int, int, int], generator: torch.Generator) -> Tensor:
    """What pictures start from, [B, C, h, w]: standard normal, less its mean in each channel of each picture.

    The noisiest step of the usual schedules still holds a trace of the picture, .07 of it in Stable
    Diffusion's (Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed", section
    3.1), so that a model takes the mean of the noise for that of the picture. On 16 x 16 cells it is as large
    as the trace (1 / 16), and the ground comes out in a color that nobody asked for; on 64 x 64 taking it out
    changes next to nothing.
    """
    noise = torch.randn(shape, generator=generator)
    return noise - noise.mean((2, 3), keepdim=True)


def sample(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    config: SamplingConfig,
    generator: torch.Generator,
    size: tuple[int, int] | None = None,
    batch: int = 8,
    lora: Lora | None = None,
    noises: Sequence[int] | None = None,
) -> Tensor:
    """The pictures of `sample_each` together, [B, 3, H, W] in 0..1 on the CPU."""
    return torch.stack(list(sample_each(backbone, prompts, config, generator, size, batch, lora, noises)))


@torch.no_grad()
def sample_each(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    config: SamplingConfig,
    generator: torch.Generator,
    size: tuple[int, int] | None = None,
    batch: int = 8,
    lora: Lora | None = None,
    noises: Sequence[int] | None = None,
) -> Iterator[Tensor]:
    """One picture per prompt, [3, H, W] in 0..1 on the CPU, `batch` at a time as soon as they are drawn.

    size: (height, width) in pixels, default the model's own. The noise of picture i depends on the
    generator and on i alone, not on `batch`. lora: adapts the model, with and without the prompt. noises:
    per prompt, a number; prompts of one number start from the same noise, so that only what they say makes
    them differ (default: each from its own, 0, 1, ...).
    """
    for latents in _latents(backbone, prompts, config, generator, size, batch, lora, noises):
        yield from backbone.decode_latent(latents).clamp(0, 1).float().cpu()


@torch.no_grad()
def sample_latents(
    backbone: Backbone, prompts: Sequence[Prompt], config: SamplingConfig, generator: torch.Generator
) -> Tensor:
    """What `sample` decodes: scaled latents [B, C, h, w], float32 on the CPU, of the model's own size."""
    batches = _latents(backbone, prompts, config, generator, None, 8, None, None)
    return torch.cat([latents.float().cpu() for latents in batches])


def _latents(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    config: SamplingConfig,
    generator: torch.Generator,
    size: tuple[int, int] | None,
    batch: int,
    lora: Lora | None,
    noises: Sequence[int] | None,
) -> Iterator[Tensor]:
    """Denoised latents, `batch` prompts at a time."""
    chosen = list(range(len(prompts)) if noises is None else noises)
    side = backbone.native_size
    height, width = size or (side, side)
    count = max(chosen, default=-1) + 1
    shape = (count, backbone.channels, height // backbone.factor, width // backbone.factor)
    noise = first_noise(shape, generator)[chosen]
    # A picture's own noise says what is put in later: neither how many there are nor their batch matters.
    seeds = noise.flatten(1)[:, :2].contiguous().view(torch.int64)[:, 0].tolist()
    nothing = backbone.encode_prompts([Prompt(())], lora=lora)
    for start in range(0, len(prompts), batch):
        part = list(prompts[start : start + batch])
        text = backbone.encode_prompts(part, lora=lora)
        x = noise[start : start + batch].to(backbone.device)
        later = _Noise(seeds[start : start + batch], shape[1:])
        yield _denoise(backbone, x, text, nothing.repeat(len(part)), config, lora, later)


class _Noise:
    """The noise that is put in on the way: of each picture from a seed of its own, whatever the batch."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...]) -> None:
        self._rngs, self._shape = [torch.Generator().manual_seed(seed) for seed in seeds], shape

    def next(self) -> Tensor:
        return torch.stack([torch.randn(self._shape, generator=rng) for rng in self._rngs])


def _denoise(
    backbone: Backbone,
    x: Tensor,
    text: TextFeatures,
    nothing: TextFeatures,
    config: SamplingConfig,
    lora: Lora | None,
    later: _Noise,
) -> Tensor:
    """Lu et al. 2022, "DPM-Solver++": DPM-Solver++(2M) at eta 0, SDE-DPM-Solver++(2M) at eta 1."""
    alphas = backbone.alphas_cumprod.to(x.device)
    times = timesteps_for(config.steps, len(alphas))
    lora = None if lora is None else lora.to(x.device)
    both = TextFeatures.join([text, nothing])
    # Half log signal-to-noise ratio; the last step goes to the clean picture.
    half_snr = (alphas / (1 - alphas)).log() / 2
    previous: Tensor | None = None
    previous_gap = x.new_zeros(())
    for i, t in enumerate(times):
        alpha = alphas[t]
        if config.guidance > 1:
            at = torch.full((2 * len(x),), t, device=x.device)
            given, free = backbone.predict(torch.cat([x, x]), at, both, lora=lora).chunk(2)
            predicted = guided(given, free, config)
        else:
            at = torch.full((len(x),), t, device=x.device)
            predicted = backbone.predict(x, at, text, lora=lora)
        original = predicted_original(x, predicted, alpha, backbone.prediction)
        if i + 1 == len(times):
            return original
        following = alphas[times[i + 1]]
        gap = half_snr[times[i + 1]] - half_snr[t]
        direction = original
        if previous is not None:
            ratio = previous_gap / gap
            direction = (1 + 1 / (2 * ratio)) * original - previous / (2 * ratio)
        # What is taken away beyond the ordinary equation's share comes back as new noise.
        more = config.eta * gap
        spread = (1 - following).sqrt()
        decay = spread / (1 - alpha).sqrt() * (-more).exp()
        x = decay * x - following.sqrt() * (-gap - more).expm1() * direction
        if config.eta:
            x = x + spread * (-(-2 * more).expm1()).sqrt() * later.next().to(x)
        previous, previous_gap = original, gap
    return x
