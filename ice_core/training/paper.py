"""The paper's method: two phases of textual inversion with anchors.

Source: Cendra and Han, "ICE", CVPR 2025, arXiv 2503.19902. Only the rows of new tokens are learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ice_core.concepts import ConceptSet, Readings, mean_row, unit
from ice_core.model.attention import AttentionRecorder
from ice_core.model.backbone import Backbone, Prompt, TextFeatures, Token
from ice_core.model.noising import (
    draw_noise,
    draw_timesteps,
    fill,
    first,
    noisy_and_target,
    timestep_cdf,
)
from ice_core.training.config import TrainingConfig
from ice_core.training.descent import descend, restore_moments, trainable
from ice_core.training.losses import (
    alignment_loss,
    composition_loss,
    intrinsic_triplet_loss,
    masked_denoising_loss,
    triplet_loss,
)
from ice_core.training.scene import Scene, Subject, features
from ice_core.training.session import RowsSession
from ice_core.training.state import TrainingState, begin


def begin_paper(
    backbone: Backbone, concepts: ConceptSet, config: TrainingConfig, readings: Readings
) -> TrainingState:
    """Step 0: instance and object token of each object are the mean embedding row of its label."""
    tokens = [
        Token(f"{concept.key}.{kind}", mean_row(backbone.word_rows(concept.label)))
        for concept in concepts.concepts
        for kind in ("instance", "object")
    ]
    return begin(backbone, concepts, config, tokens, readings)


@dataclass(frozen=True)
class _Draw:
    """What chance decides in a step. mirrored: [B] 0 or 1; timesteps: [B]; noise: [B, C, h, w]."""

    subject: Subject
    mirrored: Tensor
    timesteps: Tensor
    noise: Tensor
    template: str


class PaperSession(RowsSession):
    """Phase 1 learns instance and object tokens, phase 2 the axes'."""

    def __init__(
        self, backbone: Backbone, scene: Scene, config: TrainingConfig, state: TrainingState
    ) -> None:
        super().__init__(backbone, scene, config, state)
        self.cdf = timestep_cdf(len(self.alphas))
        self._enter(state.phase)
        restore_moments(self.optimizer, self.moved, state.moments)

    def _enter(self, phase: int) -> None:
        """Make ready what this phase learns; phase 2 freezes phase 1's tokens and starts from s_i."""
        self.phase = phase
        kinds = ("instance", "object") if phase == 1 else self.config.axes
        if phase == 2:
            for subject in self.scene.subjects:
                start = self.tokens[f"{subject.key}.instance"]
                for axis in self.config.axes:
                    name = f"{subject.key}.{axis}"
                    self.tokens.setdefault(name, trainable(Token(name, start.rows), self.device))
            self._freeze()
        self.learned = {
            s.key: [self.tokens[f"{s.key}.{kind}"] for kind in kinds] for s in self.scene.subjects
        }
        self.learn([token for tokens in self.learned.values() for token in tokens])

    def _freeze(self) -> None:
        """Cut o_i and s_i off from gradients and encode T(o_i) and T(s_i o_i), which no longer change."""
        prompts = []
        for subject in self.scene.subjects:
            for kind in ("instance", "object"):
                name = f"{subject.key}.{kind}"
                rows = {encoder: rows.detach() for encoder, rows in self.tokens[name].rows.items()}
                self.tokens[name] = Token(name, rows)
            instance, object_ = (self.tokens[f"{subject.key}.{kind}"] for kind in ("instance", "object"))
            prompts += [Prompt((object_,)), Prompt((instance, object_))]
        with torch.no_grad():
            encoded = features(self.backbone, prompts)
        self.frozen = {
            subject.key: (encoded[2 * i], encoded[2 * i + 1]) for i, subject in enumerate(self.scene.subjects)
        }

    def advance(self) -> dict[str, float] | None:
        """One step; its losses, or None with nothing changed when they are not finite."""
        if self.done == self.config.switch and self.phase == 1:
            self._enter(2)
        before = self.generator.get_state()
        draw = self._draw()
        terms = self._terms(draw)
        total = torch.stack([weight * value for weight, value in terms.values()]).sum()
        if not descend(total, self.learned[draw.subject.key], self.optimizer):
            self.generator.set_state(before)
            return None
        self.done += 1
        values = torch.stack([total, *(value for _, value in terms.values())]).detach().tolist()
        return dict(zip(("total", *terms), values, strict=True))

    def _draw(self) -> _Draw:
        config, rng, batch = self.config, self.generator, self.config.batch
        subject = self.scene.subjects[int(torch.randint(len(self.scene.subjects), (), generator=rng))]
        mirrored = (torch.rand(batch, generator=rng) < config.flip_probability).long()
        timesteps = draw_timesteps(self.cdf, batch, rng)
        noise = draw_noise((batch, *self.scene.latents.shape[1:]), config.noise_offset, rng)
        template = config.templates[int(torch.randint(len(config.templates), (), generator=rng))]
        return _Draw(subject, mirrored, timesteps, noise, template)

    def _terms(self, draw: _Draw) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of each term of the loss; every prompt of the step goes in one batch."""
        config, key = self.config, draw.subject.key
        object_ = self.tokens[f"{key}.object"]
        if self.phase == 1:
            shown = [self.tokens[f"{key}.instance"], object_]
            alone = [Prompt((object_,)), Prompt((shown[0],))]
        else:
            shown = [object_, *self.learned[key]]
            alone = [Prompt((token,)) for token in self.learned[key]]
            if config.composition_weight:
                alone.append(Prompt(tuple(shown)))
        prompt = fill(draw.template, shown)
        text = self.backbone.encode_prompts([prompt, *alone], contexts=1)
        terms = self._denoising(draw, prompt, first(text))
        pooled, anchor = unit(text.pooled[1:]), draw.subject.anchor
        if self.phase == 1:
            triplet = triplet_loss(anchor[None], pooled[:1], pooled[1:], config.object_margin)
            return terms | {"triplet": (config.object_triplet_weight, triplet)}
        kind, whole = self.frozen[key]
        intrinsics, scale = pooled[: len(config.axes)], config.intrinsic_margin_scale
        triplet = intrinsic_triplet_loss(self.scene.words, intrinsics, anchor, kind, scale)
        terms["triplet"] = (config.intrinsic_triplet_weight, triplet)
        if config.composition_weight:
            terms["composition"] = (config.composition_weight, composition_loss(pooled[-1], whole))
        return terms

    def _denoising(self, draw: _Draw, prompt: Prompt, text: TextFeatures) -> dict[str, tuple[float, Tensor]]:
        """The terms that need the denoiser; attention is read for the learned tokens' columns only."""
        scene, config = self.scene, self.config
        mirrored, timesteps = draw.mirrored.to(self.device), draw.timesteps.to(self.device)
        noisy, target = noisy_and_target(
            scene.latents[mirrored],
            draw.noise.to(self.device),
            self.alphas[timesteps],
            self.backbone.prediction,
        )
        recorder = None
        if scene.size is not None:
            spans = zip(prompt.parts, text.columns[0], strict=True)
            columns = [c for part, span in spans if isinstance(part, Token) for c in span]
            recorder = AttentionRecorder(["cross"], [scene.size], torch.tensor(columns))
        repeated = text.repeat(self.config.batch)
        output = self.backbone.predict(noisy, timesteps, repeated, recorder)
        denoising = masked_denoising_loss(output.float(), target, draw.subject.mask[mirrored])
        terms = {"denoising": (1.0, denoising)}
        if recorder is not None and scene.size is not None:
            attention = recorder.recorded("cross")[scene.size].mean(-1)
            aligned = alignment_loss(
                attention,
                draw.subject.focus[mirrored],
                scene.cost,
                config.alignment_epsilon,
                config.alignment_iterations,
            )
            terms["alignment"] = (config.alignment_weight, aligned)
        return terms
