"""Noisy copies of a picture's objects, and how well they are denoised with what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ice_core.model.backbone import Backbone, Prompt, Token
from ice_core.model.noising import draw_noise, fill, noisy_and_target
from ice_core.training.config import TrainingConfig
from ice_core.training.losses import masked_denoising_loss
from ice_core.training.scene import Scene

Said = Mapping[str, Sequence[Sequence[str | Token]]]
"""By object, what each of its copies' templates is filled with."""


@dataclass(frozen=True)
class Copies:
    """Noisy copies of one object. mirrored, timesteps: [B]; noise: [B, C, h, w]; templates: B of them."""

    mirrored: Tensor
    timesteps: Tensor
    noise: Tensor
    templates: tuple[str, ...]


@dataclass(frozen=True)
class Denoised:
    """Output and target [B, C, h, w] of an object's copies, and its mask [B, 1, h, w]."""

    output: Tensor
    target: Tensor
    mask: Tensor

    @property
    def loss(self) -> Tensor:
        """The error inside the mask."""
        return masked_denoising_loss(self.output, self.target, self.mask)


class Denoising:
    """Draws copies of a scene's objects and denoises them, in the anchored method's range of timesteps."""

    def __init__(self, backbone: Backbone, scene: Scene, config: TrainingConfig, alphas: Tensor) -> None:
        self.backbone, self.scene, self.config, self.alphas = backbone, scene, config, alphas

    def draw(self, count: int, rng: torch.Generator) -> dict[str, Copies]:
        """`count` copies of every object."""
        return {subject.key: self._copies(count, rng) for subject in self.scene.subjects}

    def _copies(self, count: int, rng: torch.Generator) -> Copies:
        """Timesteps are spread evenly over their range, one in each of `count` parts of it."""
        mirrored = (torch.rand(count, generator=rng) < self.config.flip_probability).long()
        places = (torch.arange(count) + torch.rand(count, generator=rng)) / count
        anchored, last = self.config.anchored, len(self.alphas) - 1
        shares = anchored.earliest + (anchored.latest - anchored.earliest) * places
        timesteps = (shares * last).round().long()
        noise = draw_noise((count, *self.scene.latents.shape[1:]), 0, rng)
        templates = self.config.templates
        picked = torch.randint(len(templates), (count,), generator=rng).tolist()
        return Copies(mirrored, timesteps, noise, tuple(templates[i] for i in picked))

    def passes(self, copies: Mapping[str, Copies]) -> list[Mapping[str, Copies]]:
        """Of which objects the denoiser works together: of all, or of one after the other to save memory."""
        return [{key: one} for key, one in copies.items()] if self.backbone.saves_memory else [copies]

    def __call__(self, copies: Mapping[str, Copies], said: Said) -> dict[str, Denoised]:
        """Each object's copies, in one pass of the denoiser."""
        subjects = [s for s in self.scene.subjects if s.key in copies]
        prompts: list[Prompt] = []
        for s in subjects:
            prompts += [fill(t, parts) for t, parts in zip(copies[s.key].templates, said[s.key], strict=True)]
        drawn, device = [copies[s.key] for s in subjects], self.scene.latents.device
        mirrored, timesteps, noise = (
            torch.cat([getattr(one, name) for one in drawn]).to(device)
            for name in ("mirrored", "timesteps", "noise")
        )
        noisy, target = noisy_and_target(
            self.scene.latents[mirrored], noise, self.alphas[timesteps], self.backbone.prediction
        )
        output = self.backbone.predict(noisy, timesteps, self.backbone.encode_prompts(prompts)).float()
        seen, at = {}, 0
        for s, one in zip(subjects, drawn, strict=True):
            span = slice(at, at + len(one.timesteps))
            seen[s.key] = Denoised(output[span], target[span], s.mask[mirrored[span]])
            at = span.stop
        return seen
