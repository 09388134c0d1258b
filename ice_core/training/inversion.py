"""Plain textual inversion, to compare with: one token per object, learned from the whole picture.

Source: Gal et al., "An Image is Worth One Word", arXiv 2208.01618, section 3. No masks, no anchors:
nothing tells the objects of a picture apart but the words that their tokens start from.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from ice_core.concepts import ConceptSet, Readings, mean_row
from ice_core.model.backbone import Backbone, Token
from ice_core.model.noising import draw_noise, fill, noisy_and_target
from ice_core.training.config import TrainingConfig
from ice_core.training.descent import (
    adamw,
    descend,
    learning,
    moments_of,
    restore_moments,
    row_sizes,
    trainable,
)
from ice_core.training.scene import Scene
from ice_core.training.state import TrainingState, begin


def begin_inversion(
    backbone: Backbone, concepts: ConceptSet, config: TrainingConfig, readings: Readings
) -> TrainingState:
    """Step 0: each object's one token is the mean embedding row of its label."""
    tokens = [Token(f"{c.key}.object", mean_row(backbone.word_rows(c.label))) for c in concepts.concepts]
    return begin(backbone, concepts, config, tokens, readings)


class InversionSession:
    """Every step learns the token of one object, drawn by chance; timesteps are uniform."""

    phase = 1
    settled = False

    def __init__(
        self, backbone: Backbone, scene: Scene, config: TrainingConfig, state: TrainingState
    ) -> None:
        self.backbone, self.scene, self.config, self.started = backbone, scene, config, state
        self.device = scene.latents.device
        self.done = state.step
        self.generator = torch.Generator()
        self.generator.set_state(state.generator.clone())
        self.alphas = backbone.alphas_cumprod.clone().float()
        self.tokens = {name: trainable(token, self.device) for name, token in state.tokens.items()}
        every, sizes = list(self.tokens.values()), row_sizes(backbone)
        self.optimizer = adamw(every, config.learning_rate, config.weight_decay, sizes)
        self.rows = {f"{t.name}/{encoder}": rows for t in every for encoder, rows in t.rows.items()}
        restore_moments(self.optimizer, self.rows, state.moments)

    def state(self) -> TrainingState:
        """A copy of where training stands."""
        with learning():
            return replace(
                self.started,
                step=self.done,
                tokens={name: token.detach() for name, token in self.tokens.items()},
                moments=moments_of(self.optimizer, self.rows),
                generator=self.generator.get_state(),
            )

    def advance(self) -> dict[str, float] | None:
        """One step; its losses, or None with nothing changed when they are not finite."""
        config, rng, scene = self.config, self.generator, self.scene
        before = rng.get_state()
        subject = scene.subjects[int(torch.randint(len(scene.subjects), (), generator=rng))]
        mirrored = (torch.rand(1, generator=rng) < config.flip_probability).long().to(self.device)
        timesteps = torch.randint(len(self.alphas), (1,), generator=rng)
        noise = draw_noise((1, *scene.latents.shape[1:]), 0, rng).to(self.device)
        template = config.templates[int(torch.randint(len(config.templates), (), generator=rng))]
        token = self.tokens[f"{subject.key}.object"]
        signal = self.alphas[timesteps].to(self.device)
        noisy, target = noisy_and_target(scene.latents[mirrored], noise, signal, self.backbone.prediction)
        text = self.backbone.encode_prompts([fill(template, [token])])
        output = self.backbone.predict(noisy, timesteps.to(self.device), text)
        loss = F.mse_loss(output.float(), target)
        if not descend(loss, [token], self.optimizer):
            rng.set_state(before)
            return None
        self.done += 1
        return {"total": loss.item(), "denoising": loss.item()}
