"""What the methods of training have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from ice_core.model.backbone import Backbone, Token
from ice_core.training.config import TrainingConfig
from ice_core.training.descent import adamw, learning, moments_of, row_sizes, trainable
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


class StartedSession:
    """What all methods that train share: where they stand, the generator of all chance, and the schedule."""

    def __init__(
        self, backbone: Backbone, scene: Scene, config: TrainingConfig, state: TrainingState
    ) -> None:
        self.backbone, self.scene, self.config, self.started = backbone, scene, config, state
        self.device = scene.latents.device
        self.done, self.settled = state.step, state.settled
        self.generator = torch.Generator()
        self.generator.set_state(state.generator.clone())
        self.alphas = backbone.alphas_cumprod.clone().float().to(self.device)


class RowsSession(StartedSession):
    """What the methods share that move rows of tokens by AdamW; a method says which by `learn`."""

    optimizer: torch.optim.AdamW
    moved: dict[str, Tensor]
    """The rows that are learned at present, by `<token>/<encoder>`."""

    def __init__(
        self, backbone: Backbone, scene: Scene, config: TrainingConfig, state: TrainingState
    ) -> None:
        super().__init__(backbone, scene, config, state)
        self.tokens = {name: trainable(token, self.device) for name, token in state.tokens.items()}

    def learn(self, tokens: Sequence[Token]) -> None:
        """From now on move these tokens and no other, with fresh moments."""
        self.moved = {
            f"{token.name}/{encoder}": rows for token in tokens for encoder, rows in token.rows.items()
        }
        config = self.config
        self.optimizer = adamw(tokens, config.learning_rate, config.weight_decay, row_sizes(self.backbone))

    def state(self) -> TrainingState:
        """A copy of where training stands; call it with or without inference mode."""
        with learning():
            return replace(
                self.started,
                step=self.done,
                tokens={name: token.detach() for name, token in self.tokens.items()},
                moments=moments_of(self.optimizer, self.moved),
                generator=self.generator.get_state(),
            )
