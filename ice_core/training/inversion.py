"""Plain textual inversion, to compare with: one token for the whole picture.

Source: Gal et al., "An Image is Worth One Word", arXiv 2208.01618, section 3. No masks, no anchors.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.concepts import mean_row
from ice_core.errors import IceError
from ice_core.model.backbone import Backbone, Token
from ice_core.model.noising import draw_noise, fill, noisy_and_target
from ice_core.model.prompts import NEUTRAL_TEMPLATES
from ice_core.training.descent import adamw, descend, learning, row_sizes, trainable
from ice_core.training.events import StepDone
from ice_core.training.scene import encode_both


@dataclass(frozen=True)
class InversionConfig:
    """steps, learning_rate: by default those of `TrainingConfig`, so that equal work is compared."""

    steps: int = 800
    learning_rate: float = 5e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise IceError(f"steps is {self.steps}: it must be 1 or more")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise IceError(f"learning_rate is {self.learning_rate}: it must be above 0")


@dataclass(frozen=True)
class Inverted:
    """The last event; the token is named after the label."""

    token: Token


def invert(
    backbone: Backbone, image: Tensor, label: str, config: InversionConfig | None = None
) -> Generator[StepDone | Inverted, None, None]:
    """Learn one token of one row, started from the mean row of `label`, for a picture [3, H, W] in 0..1.

    Timesteps are uniform; every step may mirror the picture. Works inside `torch.inference_mode()`.
    Raises IceError for a picture that the model cannot take and when the loss is not finite.
    """
    height, width = image.shape[-2:]
    if height % backbone.multiple or width % backbone.multiple:
        raise IceError(
            f"the picture is {width} x {height}, but {backbone.name} takes sides that are multiples of "
            f"{backbone.multiple}: resize it first"
        )
    if not label.strip():
        raise IceError("the label is empty: give a word to start from, such as ball")
    return _events(backbone, image, label, config or InversionConfig())


def _events(
    backbone: Backbone, image: Tensor, label: str, config: InversionConfig
) -> Generator[StepDone | Inverted, None, None]:
    rng = torch.Generator().manual_seed(config.seed)
    with learning():
        with torch.no_grad():
            latents = encode_both(backbone, image)
        token = trainable(Token(label, mean_row(backbone.word_rows(label))), latents.device)
        optimizer = adamw([token], config.learning_rate, weight_decay=1e-2, sizes=row_sizes(backbone))
        alphas = backbone.alphas_cumprod.clone().float()
    for step in range(1, config.steps + 1):
        with learning():
            mirrored = torch.randint(2, (1,), generator=rng)
            timesteps = torch.randint(len(alphas), (1,), generator=rng)
            noise = draw_noise((1, *latents.shape[1:]), 0, rng).to(latents.device)
            template = NEUTRAL_TEMPLATES[int(torch.randint(len(NEUTRAL_TEMPLATES), (), generator=rng))]
            signal = alphas[timesteps].to(latents.device)
            picture = latents[mirrored.to(latents.device)]
            noisy, target = noisy_and_target(picture, noise, signal, backbone.prediction)
            text = backbone.encode_prompts([fill(template, [token])])
            output = backbone.predict(noisy, timesteps.to(latents.device), text)
            loss = F.mse_loss(output.float(), target)
            moved = descend(loss, [token], optimizer)
        if not moved:
            raise IceError(
                f"inversion diverged at step {step} of {config.steps}: lower the learning rate "
                f"(now {config.learning_rate:g})"
            )
        yield StepDone(step, config.steps, 1, {"total": loss.item(), "denoising": loss.item()})
    yield Inverted(token.detach())
