"""Reading an object's properties with the diffusion model: which words make it denoise best.

Li, Prabhudesai, Duggal, Brown and Pathak, "Your Diffusion Model is Secretly a Zero-Shot Classifier", ICCV
2023, arXiv 2303.16203: the class with the lowest denoising error, the same noises for every class. Inside
the object's mask (ours).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.attributes.reading import check_choice, check_readable, closeness, nothing, reading_of
from ice_core.attributes.values import Axis, Reading, Readings
from ice_core.concepts import ConceptSet, unit
from ice_core.errors import IceError
from ice_core.model.backbone import Backbone, Prompt, TextFeatures
from ice_core.model.noising import draw_noise, noisy_and_target
from ice_core.model.prompts import PRIOR_TEMPLATE


@dataclass(frozen=True)
class ModelReadingConfig:
    """How the diffusion model reads.

    noises: pairs of noise and timestep that decide. first_noises, survivors: of an axis with more values
    than `survivors`, all are tried on that few noises and the best so many on the rest (the paper's way
    with many classes). earliest, latest: timesteps, as shares of the schedule; the middle tells most.
    batch: passes at a time. candidates, confidence: as in `ReadingConfig`.

    Raises IceError for a value that cannot work.
    """

    noises: int = 32
    first_noises: int = 8
    survivors: int = 8
    earliest: float = 0.1
    latest: float = 0.9
    batch: int = 8
    candidates: int = 5
    confidence: float = 0.5

    def __post_init__(self) -> None:
        for name, least in (
            ("first_noises", 2),
            ("noises", self.first_noises),
            ("survivors", 2),
            ("batch", 1),
        ):
            if getattr(self, name) < least:
                raise IceError(f"{name} is {getattr(self, name)}: it must be {least} or more")
        if not 0 <= self.earliest < self.latest <= 1:
            raise IceError(
                f"earliest is {self.earliest}, latest {self.latest}: both are shares of the schedule, in "
                "rising order in 0..1"
            )
        check_choice(self.candidates, self.confidence)


@torch.no_grad()
def read_with_model(
    backbone: Backbone,
    concepts: ConceptSet,
    axes: Sequence[Axis],
    config: ModelReadingConfig | None,
    generator: torch.Generator,
) -> Readings:
    """What the model says of every object and axis; a free axis has no candidates and does not fit.

    generator: on the CPU. All candidates, axes and objects see the same noises. Raises IceError for an
    object without label or mask.
    """
    config = config or ModelReadingConfig()
    for concept in concepts.concepts:
        check_readable(concept)
    trials, covered = trials_of(backbone, concepts, config, generator)
    readings: dict[str, dict[str, Reading]] = {}
    for concept in concepts.concepts:
        readings[concept.key] = {
            axis.name: nothing(axis, "model")
            if axis.free
            else _read_axis(backbone, trials, covered[concept.key], concept.label, axis, config)
            for axis in axes
        }
    return readings


@dataclass(frozen=True)
class Trials:
    """What every candidate is tried on. noisy, target: [N, C, h, w]; timesteps: [N]."""

    noisy: Tensor
    target: Tensor
    timesteps: Tensor


def trials_of(
    backbone: Backbone, concepts: ConceptSet, config: ModelReadingConfig, generator: torch.Generator
) -> tuple[Trials, dict[str, Tensor]]:
    """Noisy copies of a picture, and of each object the share [1, 1, h, w] of the cells that it covers."""
    latent = backbone.encode_image(concepts.image.clone().float()[None].to(backbone.device)).float()
    size = (latent.shape[-2], latent.shape[-1])
    covered = {
        concept.key: F.adaptive_avg_pool2d(concept.mask[None, None].float(), size).to(latent.device)
        for concept in concepts.concepts
    }
    return draw_trials(backbone, latent, config, generator), covered


def draw_trials(
    backbone: Backbone, latent: Tensor, config: ModelReadingConfig, generator: torch.Generator
) -> Trials:
    """Noisy copies of a latent [1, C, h, w], one timestep in each of N equal parts of the range.

    In shuffled order, so that the first few cover the range too.
    """
    n, last = config.noises, len(backbone.alphas_cumprod) - 1
    strata = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    timesteps = (last * (config.earliest + (config.latest - config.earliest) * strata)).round().long()
    noise = draw_noise((n, *latent.shape[1:]), 0.0, generator).to(latent.device)
    signal = backbone.alphas_cumprod[timesteps].to(latent.device)
    noisy, target = noisy_and_target(latent, noise, signal, backbone.prediction)
    return Trials(noisy, target, timesteps.to(latent.device))


def _read_axis(
    backbone: Backbone, trials: Trials, mask: Tensor, label: str, axis: Axis, config: ModelReadingConfig
) -> Reading:
    prompts = [Prompt((PRIOR_TEMPLATE.format(f"{value} {label}"),)) for value in axis.values]
    text = backbone.encode_prompts(prompts)
    kept = torch.arange(len(prompts))
    few = config.first_noises if len(prompts) > config.survivors else config.noises
    found = errors(backbone, _part(trials, 0, few), mask, text, config.batch)
    if few < config.noises:
        kept = found.mean(1).argsort(stable=True)[: config.survivors]
        rest = _part(trials, few, config.noises)
        chosen = TextFeatures.join([_prompt(text, int(i)) for i in kept])
        found = torch.cat([found[kept], errors(backbone, rest, mask, chosen, config.batch)], 1)
    weights = torch.zeros(len(prompts))
    weights[kept] = error_weights(found)
    near = closeness(unit(text.pooled).cpu())
    return reading_of(axis, weights, near, "model", config.candidates, config.confidence)


def errors(backbone: Backbone, trials: Trials, mask: Tensor, text: TextFeatures, batch: int) -> Tensor:
    """Mean squared error inside a mask, of every prompt on every trial: [V, N], float32, CPU.

    mask: [1, 1, h, w], the share of each cell that the object covers.
    """
    values, count = len(text.columns), len(trials.timesteps)
    pairs = torch.cartesian_prod(torch.arange(values), torch.arange(count))
    parts = []
    for chunk in pairs.split(batch):
        n = chunk[:, 1].to(trials.noisy.device)
        prompts = TextFeatures.join([_prompt(text, int(v)) for v in chunk[:, 0]])
        output = backbone.predict(trials.noisy[n], trials.timesteps[n], prompts).float()
        square = ((output - trials.target[n]) ** 2).mean(1, keepdim=True)
        parts.append(((square * mask).sum((1, 2, 3)) / mask.sum()).cpu())
    return torch.cat(parts).view(values, count)


def error_weights(found: Tensor) -> Tensor:
    """Probabilities [V] of errors [V, N] that were measured on the same N trials.

    The difference to the best value, trial by trial, is mean m with standard error s; the softmax is of
    -m / s. Paired, since what a noise costs every candidate alike says nothing and is most of the error.
    """
    best = found.mean(1).argmin()
    difference = (found - found[best]).double()
    mean = difference.mean(1)
    spread = difference.std(1) / found.shape[1] ** 0.5
    # Where no trial differs there is nothing between the two; a spread of 0 alone means certainty.
    ratio = torch.where(mean > 0, mean / spread.clamp(min=1e-12), torch.zeros_like(mean))
    return (-ratio).softmax(0).float()


def _part(trials: Trials, start: int, end: int) -> Trials:
    return Trials(trials.noisy[start:end], trials.target[start:end], trials.timesteps[start:end])


def _prompt(text: TextFeatures, index: int) -> TextFeatures:
    """The features of one of B prompts, as a batch of one."""
    one = slice(index, index + 1)
    extra = {name: value[one] for name, value in text.extra.items()}
    return TextFeatures(text.context[one], text.pooled[one], text.columns[one], extra)
