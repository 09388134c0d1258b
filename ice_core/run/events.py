"""What a run tells while it works. Not asking for the next event cancels it; closing the stream keeps what
was learned so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ice_core.concepts import ConceptSet, LearnedConcepts, Readings
from ice_core.figures.presentation import ShownConcept
from ice_core.model.lora import Lora
from ice_core.run.report import Report


@dataclass(frozen=True)
class Progress:
    """How far a stage is: `done` of `total`, and what it is at."""

    stage: str
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class Found:
    """Stage One is over. concepts: at the size the model works at."""

    concepts: ConceptSet


@dataclass(frozen=True)
class Read:
    """What the objects are like has been read."""

    readings: Readings


@dataclass(frozen=True)
class Preview:
    """Pictures [N, 3, H, W] of the concepts `keys` as they are now.

    step: of all steps, refinement included; line: where training stands, for people.
    """

    step: int
    keys: tuple[str, ...]
    pictures: Tensor
    line: str


@dataclass(frozen=True)
class Trained:
    """Everything is learned. losses: one mapping per step, refinement included."""

    learned: LearnedConcepts
    lora: Lora | None
    losses: tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class Drawn:
    """The pictures of one concept are there."""

    shown: ShownConcept


@dataclass(frozen=True)
class Written:
    """The last event: all files are written."""

    report: Report


RunEvent = Progress | Found | Read | Preview | Trained | Drawn | Written
