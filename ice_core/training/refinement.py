"""Refinement as a stream of events: the model learns to draw with tokens that are already learned.

Optional third phase of Stage Two (Cendra and Han, CVPR 2025, arXiv 2503.19902, tune all weights there);
ours is a LoRA on the attention of the U-Net and, if asked for, of the text encoders. Prior preservation: Ruiz
et al., "DreamBooth", arXiv 2208.12242, section 3.3, on a handful of latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.concepts import ConceptSet, LearnedConcepts, check_fits
from ice_core.errors import IceError
from ice_core.model.backbone import Backbone, Prompt, TextFeatures, all_lora_targets
from ice_core.model.lora import Lora
from ice_core.model.noising import draw_noise, draw_timesteps, fill, noisy_and_target, timestep_cdf
from ice_core.model.prompts import NEUTRAL_TEMPLATES, PRIOR_TEMPLATE
from ice_core.model.sampling import SamplingConfig, sample_latents
from ice_core.training.config import TrainingConfig
from ice_core.training.descent import learning, moments_of, restore_moments
from ice_core.training.events import StepDone
from ice_core.training.losses import masked_denoising_loss
from ice_core.training.refinement_state import RefinementConfig, RefinementState, tokens_hash
from ice_core.training.scene import check_concepts, prepare
from ice_core.training.state import picture_hash

__all__ = [
    "PriorDrawn",
    "Refined",
    "RefinementConfig",
    "RefinementEvent",
    "RefinementSnapshot",
    "RefinementState",
    "refine",
]

PHASE = 3
_DRAWING = SamplingConfig(20, eta=0.0)
"""Of the pictures that the refined model is held to: many are drawn, and they are never shown."""


@dataclass(frozen=True)
class PriorDrawn:
    """`done` of `total` pictures, which the model draws before the first step, are there."""

    done: int
    total: int


@dataclass(frozen=True)
class RefinementSnapshot:
    """Refinement can go on from here, and `state.lora` can be used."""

    state: RefinementState


@dataclass(frozen=True)
class Refined:
    """The last event; the LoRA is on the CPU, in float32."""

    lora: Lora
    state: RefinementState


RefinementEvent = PriorDrawn | StepDone | RefinementSnapshot | Refined


def refine(
    backbone: Backbone,
    concepts: ConceptSet,
    learned: LearnedConcepts,
    config: RefinementConfig,
    resume: RefinementState | None = None,
) -> Generator[RefinementEvent, None, None]:
    """Learn a LoRA with which the learned tokens, frozen, draw the objects of their picture.

    Yields a PriorDrawn per prior picture and a RefinementSnapshot once they are there; then a StepDone of
    phase 3 per step, a RefinementSnapshot every `config.snapshot_every` steps and after the last one; then
    Refined. `learned.seed` seeds everything. Not asking for the next event, or closing the iterator,
    cancels and leaves nothing behind. With `resume` the remaining steps give the numbers of an
    uninterrupted run.

    Input is checked when this is called; models work when events are asked for. Works inside
    `torch.inference_mode()`. Raises IceError for input that cannot be learned from and when a loss is not
    finite; in that case a RefinementSnapshot of the last good state comes first.
    """
    if config.steps < 1:
        raise IceError(f"steps of the refinement is {config.steps}: give it 1 or more, or leave it out")
    check_concepts(backbone, concepts)
    check_fits(learned, backbone)
    if missing := {c.key for c in concepts.concepts} - {c.key for c in learned.concepts}:
        raise IceError(
            f"no tokens were learned for {', '.join(sorted(missing))}: refine with the concepts and tokens "
            "of one training"
        )
    if resume is not None:
        resume.check(backbone, concepts, learned, config)
    return _events(backbone, concepts, learned, config, resume)


def _events(
    backbone: Backbone,
    concepts: ConceptSet,
    learned: LearnedConcepts,
    config: RefinementConfig,
    resume: RefinementState | None,
) -> Generator[RefinementEvent, None, None]:
    state = resume
    if state is None:
        state = yield from _begin(backbone, concepts, learned, config)
        yield RefinementSnapshot(state)
    with learning():
        session = _Session(backbone, concepts, learned, config, state)
    for step in range(state.step + 1, config.steps + 1):
        with learning():
            losses = session.advance()
        if losses is None:
            yield RefinementSnapshot(session.state())
            raise IceError(
                f"refinement diverged at step {step} of {config.steps}: lower its learning rate "
                f"(now {config.learning_rate:g}) or change the seed; the state after step {step - 1} is good"
            )
        yield StepDone(step, config.steps, PHASE, losses)
        if step % config.snapshot_every == 0 or step == config.steps:
            yield RefinementSnapshot(session.state())
    last = session.state()
    yield Refined(last.lora, last)


def _begin(
    backbone: Backbone, concepts: ConceptSet, learned: LearnedConcepts, config: RefinementConfig
) -> Generator[PriorDrawn, None, RefinementState]:
    """Step 0: a LoRA that changes nothing, and what the model draws for plain labels, which is to stay.

    One picture at a time, at the model's own size, so that cancelling never waits for more than that.
    """
    generator = torch.Generator().manual_seed(learned.seed)
    total = config.prior_pictures if config.prior_weight else 0
    labels = sorted({concept.label for concept in concepts.concepts})
    drawn = []
    for i in range(total):
        with learning():
            prompt = Prompt((PRIOR_TEMPLATE.format(labels[i % len(labels)]),))
            drawn.append(sample_latents(backbone, [prompt], _DRAWING, generator))
        yield PriorDrawn(i + 1, total)
    with learning():
        return RefinementState(
            step=0,
            lora=Lora.initial(
                all_lora_targets(backbone) if config.text_encoders else backbone.lora_targets,
                config.rank,
                generator,
                config.alpha,
            ),
            moments={},
            prior=torch.cat(drawn) if drawn else torch.zeros(0, backbone.channels, 1, 1),
            generator=generator.get_state(),
            config=config,
            picture=picture_hash(concepts.image),
            learned=tokens_hash(learned),
            base_name=backbone.name,
            base_fingerprint=backbone.fingerprint,
        )


class _Session:
    """The moving parts of one refinement: the LoRA, optimizer, generator and step count."""

    def __init__(
        self,
        backbone: Backbone,
        concepts: ConceptSet,
        learned: LearnedConcepts,
        config: RefinementConfig,
        state: RefinementState,
    ) -> None:
        self.backbone, self.config, self.started = backbone, config, state
        self.scene = prepare(backbone, concepts, TrainingConfig(axes=learned.axes, alignment_weight=0))
        self.device = self.scene.latents.device
        self.done = state.step
        self.generator = torch.Generator()
        self.generator.set_state(state.generator.clone())
        self.alphas = backbone.alphas_cumprod.clone().float()
        self.cdf = timestep_cdf(len(self.alphas))
        self.tokens = {
            c.key: [c.object.detach(), *(token.detach() for token in c.intrinsics.values())]
            for c in learned.concepts
        }
        self.prior = state.prior.clone().to(self.device)
        labels = sorted({subject.label for subject in self.scene.subjects})
        self.classes = [Prompt((PRIOR_TEMPLATE.format(label),)) for label in labels]
        self.encoded: dict[int, TextFeatures] = {}
        start = state.lora.detach()
        self.lora = Lora(self._trainable(start.down), self._trainable(start.up), start.alpha)
        self._restore(state)

    def _trainable(self, matrices: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device).requires_grad_() for name, value in matrices.items()}

    @property
    def matrices(self) -> dict[str, Tensor]:
        """All that is learned, by `<layer>/<down | up>`."""
        down = {f"{name}/down": value for name, value in self.lora.down.items()}
        return down | {f"{name}/up": value for name, value in self.lora.up.items()}

    def _restore(self, state: RefinementState) -> None:
        config = self.config
        matrices = self.matrices
        self.optimizer = torch.optim.AdamW(
            matrices.values(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        restore_moments(self.optimizer, matrices, state.moments)

    def state(self) -> RefinementState:
        """A copy of where refinement stands; call it with or without inference mode."""
        with learning():
            return replace(
                self.started,
                step=self.done,
                lora=self.lora.detach(),
                moments=moments_of(self.optimizer, self.matrices),
                generator=self.generator.get_state(),
            )

    def advance(self) -> dict[str, float] | None:
        """One step; its losses, or None with nothing changed when they are not finite."""
        before = self.generator.get_state()
        terms: dict[str, tuple[float, Callable[[], Tensor]]] = {"denoising": (1.0, self._object_loss)}
        if len(self.prior):
            terms["prior"] = (self.config.prior_weight, self._prior_loss)
        matrices = list(self.matrices.values())
        sums = [torch.zeros_like(matrix) for matrix in matrices]
        values = {}
        # One term after the other: the graph of the first is gone before the second is built.
        for name, (weight, compute) in terms.items():
            loss = compute()
            for so_far, gradient in zip(sums, torch.autograd.grad(weight * loss, matrices), strict=True):
                so_far += gradient
            values[name] = loss.item()
        total = sum(weight * values[name] for name, (weight, _) in terms.items())
        if not (math.isfinite(total) and all(bool(torch.isfinite(x).all()) for x in sums)):
            self.generator.set_state(before)
            return None
        for matrix, gradient in zip(matrices, sums, strict=True):
            matrix.grad = gradient
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return {"total": total, **values}

    def _draw_index(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.generator))

    def _object_loss(self) -> Tensor:
        """The noise of one object's prompt against the picture's, inside the object's mask."""
        scene, rng = self.scene, self.generator
        subject = scene.subjects[self._draw_index(len(scene.subjects))]
        mirrored = (torch.rand(1, generator=rng) < self.config.flip_probability).long().to(self.device)
        template = NEUTRAL_TEMPLATES[self._draw_index(len(NEUTRAL_TEMPLATES))]
        text = self._text(fill(template, self.tokens[subject.key]))
        output, target = self._denoise(scene.latents[mirrored], text)
        return masked_denoising_loss(output, target, subject.mask[mirrored])

    def _prior_loss(self) -> Tensor:
        """The noise of one of the model's own pictures, which its plain label is to keep drawing."""
        index = self._draw_index(len(self.prior))
        label = index % len(self.classes)
        if self.config.text_encoders:
            text = self._text(self.classes[label])
        else:
            # What no step changes is encoded once.
            text = self.encoded.get(label) or self._text(self.classes[label])
            self.encoded[label] = text
        return F.mse_loss(*self._denoise(self.prior[index : index + 1], text))

    def _text(self, prompt: Prompt) -> TextFeatures:
        """Its features, with gradients where the text encoders learn."""
        with torch.set_grad_enabled(self.config.text_encoders):
            return self.backbone.encode_prompts([prompt], lora=self.lora)

    def _denoise(self, latents: Tensor, text: TextFeatures) -> tuple[Tensor, Tensor]:
        """What the refined model predicts for a noisy latent [1, C, h, w], and what it should, float32."""
        timesteps = draw_timesteps(self.cdf, 1, self.generator)
        noise = draw_noise(latents.shape, self.config.noise_offset, self.generator).to(self.device)
        signal = self.alphas[timesteps].to(self.device)
        noisy, target = noisy_and_target(latents, noise, signal, self.backbone.prediction)
        output = self.backbone.predict(noisy, timesteps.to(self.device), text, lora=self.lora)
        return output.float(), target
