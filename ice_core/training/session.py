"""What the methods of training have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from ice_core.model.backbone import Backbone
from ice_core.training.config import TrainingConfig
from ice_core.training.descent import learning, moments_of, trainable
from ice_core.training.scene import Scene
from ice_core.training.state import TrainingState


class Session(Protocol):
    """The moving parts of one training by one method."""

    @property
    def phase(self) -> int:
        """Of the last step."""

    @property
    def settled(self) -> bool:
        """Whether it has ended before its last step."""

    def advance(self) -> dict[str, float] | None:
        """One step; its losses, or None with nothing changed when they are not finite."""

    def state(self) -> TrainingState:
        """A copy of where training stands; call it with or without inference mode."""


class RowsSession:
    """What the methods share that learn rows of tokens by AdamW: tokens, optimizer, generator, step count.

    A method sets `optimizer` and names in `learned_rows` what it moves, by `<token>/<encoder>`.
    """

    settled = False
    optimizer: torch.optim.AdamW

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

    def learned_rows(self) -> dict[str, Tensor]:
        """Every row tensor that is learned at present."""
        raise NotImplementedError

    def state(self) -> TrainingState:
        """A copy of where training stands; call it with or without inference mode."""
        with learning():
            return replace(
                self.started,
                step=self.done,
                tokens={name: token.detach() for name, token in self.tokens.items()},
                moments=moments_of(self.optimizer, self.learned_rows()),
                generator=self.generator.get_state(),
            )
