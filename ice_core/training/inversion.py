"""Plain textual inversion, to compare with: one token per object, learned from the whole picture.

Source: Gal et al., "An Image is Worth One Word", arXiv 2208.01618, section 3. No masks, no anchors:
nothing tells the objects of a picture apart but the words that their tokens start from.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ice_core.concepts import ConceptSet, Readings, mean_row
from ice_core.model.backbone import Backbone, Token
from ice_core.model.noising import draw_noise, fill, noisy_and_target
from ice_core.training.config import TrainingConfig
from ice_core.training.descent import descend, restore_moments
from ice_core.training.scene import Scene
from ice_core.training.session import RowsSession
from ice_core.training.state import TrainingState, begin


def begin_inversion(
    backbone: Backbone, concepts: ConceptSet, config: TrainingConfig, readings: Readings
) -> TrainingState:
    """Step 0: each object's one token is the mean embedding row of its label."""
    tokens = [Token(f"{c.key}.object", mean_row(backbone.word_rows(c.label))) for c in concepts.concepts]
    return begin(backbone, concepts, config, tokens, readings)


class InversionSession(RowsSession):
    """Every step learns the token of one object, drawn by chance; timesteps are uniform."""

    phase = 1

    def __init__(
        self, backbone: Backbone, scene: Scene, config: TrainingConfig, state: TrainingState
    ) -> None:
        super().__init__(backbone, scene, config, state)
        self.learn(list(self.tokens.values()))
        restore_moments(self.optimizer, self.moved, state.moments)

    def advance(self) -> dict[str, float] | None:
        """One step; its losses, or None with nothing changed when they are not finite."""
        config, rng, scene = self.config, self.generator, self.scene
        before = rng.get_state()
        subject = scene.subjects[int(torch.randint(len(scene.subjects), (), generator=rng))]
        mirrored = (torch.rand(1, generator=rng) < config.flip_probability).long().to(self.device)
        timesteps = torch.randint(len(self.alphas), (1,), generator=rng).to(self.device)
        noise = draw_noise((1, *scene.latents.shape[1:]), 0, rng).to(self.device)
        template = config.templates[int(torch.randint(len(config.templates), (), generator=rng))]
        token = self.tokens[f"{subject.key}.object"]
        signal = self.alphas[timesteps]
        noisy, target = noisy_and_target(scene.latents[mirrored], noise, signal, self.backbone.prediction)
        text = self.backbone.encode_prompts([fill(template, [token])])
        output = self.backbone.predict(noisy, timesteps, text)
        loss = F.mse_loss(output.float(), target)
        if not descend(loss, [token], self.optimizer):
            rng.set_state(before)
            return None
        self.done += 1
        return {"total": loss.item(), "denoising": loss.item()}
