"""What the methods of training have in common."""

from __future__ import annotations

from typing import Protocol

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
