"""What training tells: steps, states to go on from, and the result."""

from __future__ import annotations

from dataclasses import dataclass

from ice_core.concepts import LearnedConcepts
from ice_core.training.state import TrainingState


@dataclass(frozen=True)
class StepDone:
    """Step `step` (from 1) of `steps` is done. losses: "total" and each term before its weight."""

    step: int
    steps: int
    phase: int
    losses: dict[str, float]


@dataclass(frozen=True)
class Snapshot:
    """Training can go on from here, and `learned_so_far(state)` can be used."""

    state: TrainingState


@dataclass(frozen=True)
class Finished:
    """The last event."""

    learned: LearnedConcepts
    state: TrainingState


TrainingEvent = StepDone | Snapshot | Finished
