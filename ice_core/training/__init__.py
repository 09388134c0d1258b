"""Stage Two: tokens that look like the objects of one picture, and like one property of each; and a LoRA
that draws them closer, where refinement is wanted."""

from ice_core.training.config import STEPS, AnchoredConfig, Method, TrainingConfig
from ice_core.training.events import Finished, Snapshot, StepDone, TrainingEvent
from ice_core.training.refinement import (
    PriorDrawn,
    Refined,
    RefinementConfig,
    RefinementEvent,
    RefinementSnapshot,
    RefinementState,
    refine,
)
from ice_core.training.state import TrainingState, learned_so_far
from ice_core.training.trainer import train

__all__ = [
    "STEPS",
    "AnchoredConfig",
    "Finished",
    "Method",
    "PriorDrawn",
    "Refined",
    "RefinementConfig",
    "RefinementEvent",
    "RefinementSnapshot",
    "RefinementState",
    "Snapshot",
    "StepDone",
    "TrainingConfig",
    "TrainingEvent",
    "TrainingState",
    "learned_so_far",
    "refine",
    "train",
]
