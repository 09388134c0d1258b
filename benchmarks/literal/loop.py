"""The paper's Stage Two, step for step as it reads.

In every step the picture goes through the VAE's encoder, every prompt alone and at full length through the
text encoder, and every attention map of the U-Net is stored. New tokens are appended to the token embedding,
all of which is in the optimizer; what should not have moved is put back after the step, as in the published
textual inversion scripts.

As in `ice_core`'s paper method: prior preservation belongs to refinement and is left out; cross-attention is
read at the size that is nearest to a quarter of the latent's sides; the learning rate follows the size of
the model's own rows; chance draws the same from the same seed, so that the losses can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor

from ice_core.concepts import Concept, ConceptSet, LearnedConcept, LearnedConcepts
from ice_core.model.backbone import Token
from ice_core.model.noising import draw_noise, draw_timesteps, timestep_cdf
from ice_core.standalone.backbone import StandaloneBackbone
from ice_core.standalone.clip_text import ClipText
from ice_core.standalone.tokenizer import END, START, piece_ids
from ice_core.training.config import TrainingConfig
from ice_core.training.descent import learning, row_sizes
from ice_core.training.events import StepDone

from .attention import AttentionStore, StoringAttention
from .losses import denoising, intrinsic_triplets, object_triplet, transport

LENGTH = 77
"""Tokens of every prompt, start, end and padding included."""
ITERATIONS = 200
"""Of Sinkhorn's, as the paper has it."""


@dataclass(frozen=True)
class LiteralFinished:
    """The last event."""

    learned: LearnedConcepts


def train_literal(
    backbone: StandaloneBackbone,
    concepts: ConceptSet,
    config: TrainingConfig,
    iterations: int = ITERATIONS,
) -> Generator[StepDone | LiteralFinished, None, None]:
    """Learn the tokens of every object in a picture.

    iterations: of Sinkhorn's; they and batches of one replace what the config says of these. Yields a
    StepDone per step, then LiteralFinished with tokens of the types that `train` gives. The model is changed
    while this runs, and is as before once it has ended or was closed.
    """
    with learning():
        loop = _Loop(backbone, concepts, config, iterations)
    try:
        for step in range(1, config.steps + 1):
            with learning():
                phase, losses = loop.step(step)
            yield StepDone(step, config.steps, phase, losses)
        yield LiteralFinished(loop.learned())
    finally:
        with learning():
            loop.restore_model()


class _Loop:
    """The model with its new tokens, the optimizer and the generator."""

    def __init__(
        self, backbone: StandaloneBackbone, concepts: ConceptSet, config: TrainingConfig, iterations: int
    ) -> None:
        self.backbone, self.config, self.iterations = backbone, config, iterations
        self.image = concepts.image.clone().float().to(backbone.device)
        self.concepts = sorted(concepts.concepts, key=lambda concept: concept.key)
        self.rng = torch.Generator().manual_seed(config.seed)
        self.cdf = timestep_cdf(len(backbone.alphas_cumprod))
        self.noise: Any = DDPMScheduler(
            num_train_timesteps=len(backbone.alphas_cumprod),
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type=backbone.prediction,
        )
        assert isinstance(backbone.text, ClipText)
        self.encoder: Any = backbone.text.module
        (self.size,) = row_sizes(backbone).values()
        self.store = AttentionStore()
        self.processors = dict(backbone.unet.attn_processors)
        storing: dict[str, Any] = {
            name: StoringAttention("self" if ".attn1." in name else "cross", self.store)
            for name in self.processors
        }
        backbone.unet.set_attn_processor(storing)
        self._append_tokens()
        self._enter(("instance", "object"))

    def _append_tokens(self) -> None:
        """A row of the token embedding for every new token; the first two start at the label."""
        encoder = self.encoder
        self.words: int = encoder.get_input_embeddings().num_embeddings
        kinds = ("instance", "object", *self.config.axes)
        names = [(concept.key, kind) for concept in self.concepts for kind in kinds]
        self.ids = {name: self.words + i for i, name in enumerate(names)}
        encoder.resize_token_embeddings(self.words + len(names), mean_resizing=False)
        self.table: Tensor = encoder.get_input_embeddings().weight
        with torch.no_grad():
            for concept in self.concepts:
                label = self.table[piece_ids(concept.label)].mean(0)
                for kind in ("instance", "object"):
                    self.table[self.ids[concept.key, kind]] = label
        self.table.requires_grad_(True)

    def _enter(self, kinds: Sequence[str]) -> None:
        """A phase that learns these kinds of tokens and puts back all other rows."""
        self.kept = torch.ones(len(self.table), dtype=torch.bool)
        self.kept[[self.ids[concept.key, kind] for concept in self.concepts for kind in kinds]] = False
        self.frozen = self.table.detach().clone()
        rate, decay = self.config.learning_rate * self.size, self.config.weight_decay / self.size
        self.optimizer = torch.optim.AdamW([self.table], lr=rate, weight_decay=decay)

    def step(self, step: int) -> tuple[int, dict[str, float]]:
        """One step; its phase and its losses."""
        if step == self.config.switch + 1:
            with torch.no_grad():
                for concept in self.concepts:
                    for axis in self.config.axes:
                        start = self.table[self.ids[concept.key, "instance"]]
                        self.table[self.ids[concept.key, axis]] = start.clone()
            self._enter(self.config.axes)
        phase = 1 if step <= self.config.switch else 2
        terms = self._terms(phase)
        weights = {
            "denoising": 1.0,
            "alignment": self.config.alignment_weight,
            "triplet": (
                self.config.object_triplet_weight if phase == 1 else self.config.intrinsic_triplet_weight
            ),
        }
        total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            self.table[self.kept] = self.frozen[self.kept]
        return phase, {name: value.item() for name, value in ({"total": total} | terms).items()}

    def _terms(self, phase: int) -> dict[str, Tensor]:
        config, rng = self.config, self.rng
        concept = self.concepts[int(torch.randint(len(self.concepts), (), generator=rng))]
        mirrored = torch.rand(1, generator=rng).item() < config.flip_probability
        timesteps = draw_timesteps(self.cdf, 1, rng)
        image, mask = self.image[None], concept.mask[None, None].float()
        if mirrored:
            image, mask = image.flip(-1), mask.flip(-1)
        latents = self._encode_image(image)
        noise = draw_noise(latents.shape, config.noise_offset, rng)
        template = config.templates[int(torch.randint(len(config.templates), (), generator=rng))]

        noisy = self.noise.add_noise(latents, noise, timesteps)
        predicts_noise = self.backbone.prediction == "epsilon"
        target = noise if predicts_noise else self.noise.get_velocity(latents, noise, timesteps)
        kinds = ("instance", "object") if phase == 1 else ("object", *config.axes)
        shown = [self.ids[concept.key, kind] for kind in kinds]
        before, after = template.split("{}")
        prompt = [*piece_ids(before.strip()), *shown, *piece_ids(after.strip())]
        context = self._encode_text(prompt)[0]
        output = self.backbone.unet(noisy, timesteps, encoder_hidden_states=context).sample
        self.store.between_steps()
        columns = [1 + place for place, id_ in enumerate(prompt) if id_ in shown]
        return {
            "denoising": denoising(output, target, F.interpolate(mask, latents.shape[-2:], mode="area")),
            "alignment": self._alignment(mask, columns, latents.shape[-2:]),
            "triplet": self._triplet(concept, phase),
        }

    def _encode_image(self, image: Tensor) -> Tensor:
        """Latents [1, C, h, w] of a picture [1, 3, H, W] in 0..1."""
        vae = self.backbone.vae
        with torch.no_grad():
            latents = vae.encode(image * 2 - 1).latents
        return (latents - (vae.config["shift_factor"] or 0.0)) * vae.config["scaling_factor"]

    def _encode_text(self, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Context [1, 77, D] and T(.) [P] of a prompt's tokens."""
        padded = [START, *ids] + [END] * (LENGTH - 1 - len(ids))
        output = self.encoder(input_ids=torch.tensor([padded]))
        return output.last_hidden_state, F.normalize(output.pooler_output[0], dim=-1)

    def _alignment(self, mask: Tensor, columns: Sequence[int], latent: Sequence[int]) -> Tensor:
        """Cross-attention of the shown tokens against the mask [1, 1, H, W], at a quarter of the latent."""
        cells = latent[0] * latent[1]
        counts = sorted({stored.shape[2] for stored in self.store.maps["cross"]}, reverse=True)
        count = min(counts, key=lambda cell_count: abs(math.log(cell_count / (cells / 16))))
        scale = math.isqrt(cells // count)
        size = (latent[0] // scale, latent[1] // scale)
        maps = [stored.mean(1) for stored in self.store.maps["cross"] if stored.shape[2] == count]
        attention = torch.stack(maps).mean(0)[0][:, columns].mean(-1)
        target = F.interpolate(mask, size, mode="area")[0, 0]
        return transport(attention.view(size), target, self.config.alignment_epsilon, self.iterations)

    def _triplet(self, concept: Concept, phase: int) -> Tensor:
        config = self.config
        label = self._encode_text(piece_ids(concept.label))[1]
        object_ = self._encode_text([self.ids[concept.key, "object"]])[1]
        if phase == 1:
            instance = self._encode_text([self.ids[concept.key, "instance"]])[1]
            return object_triplet(label, object_, instance, config.object_margin)
        words = [self._encode_text(piece_ids(axis))[1] for axis in config.axes]
        tokens = [self._encode_text([self.ids[concept.key, axis]])[1] for axis in config.axes]
        return intrinsic_triplets(words, tokens, label, object_, config.intrinsic_margin_scale)

    def learned(self) -> LearnedConcepts:
        """What was learned, as `train` gives it."""
        (encoder,) = self.backbone.encoders

        def token(concept: Concept, kind: str) -> Token:
            rows = self.table[self.ids[concept.key, kind]].detach().clone()[None]
            return Token(f"{concept.key}.{kind}", {encoder: rows})

        return LearnedConcepts(
            concepts=tuple(
                LearnedConcept(
                    c.key,
                    c.label,
                    token(c, "instance"),
                    token(c, "object"),
                    {axis: token(c, axis) for axis in self.config.axes},
                )
                for c in self.concepts
            ),
            axes=self.config.axes,
            base_name=self.backbone.name,
            base_fingerprint=self.backbone.fingerprint,
            architecture=self.backbone.architecture,
            seed=self.config.seed,
            steps=self.config.steps,
        )

    def restore_model(self) -> None:
        """The vocabulary, its rows and the attention are the model's own again."""
        with torch.no_grad():
            self.table[: self.words] = self.frozen[: self.words]
        self.encoder.resize_token_embeddings(self.words, mean_resizing=False)
        self.encoder.requires_grad_(False)
        self.backbone.unet.set_attn_processor(dict(self.processors))
