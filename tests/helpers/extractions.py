"""A small picture and quick settings, for the tests of whole extractions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ice_core.localization.config import LocalizationConfig
from ice_core.model.sampling import SamplingConfig
from ice_core.run.events import Progress, RunEvent
from ice_core.run.settings import ExtractionSettings
from ice_core.training.config import TrainingConfig

SETTINGS = ExtractionSettings(
    TrainingConfig(
        axes=("color", "material"), steps=8, seed=3, snapshot_every=2, alignment_iterations=5, method="paper"
    ),
    LocalizationConfig(max_rounds=2),
    SamplingConfig(steps=2),
)


@dataclass(frozen=True)
class Named:
    label: str


class Names:
    """A retriever that knows one word."""

    def retrieve(self, image: torch.Tensor, used: tuple[str, ...] = ()) -> list[Named]:
        return [] if used else [Named("ball")]


def scene(height: int = 96, width: int = 160) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A red and a blue square on grey, with their masks."""
    image = torch.full((3, height, width), 128 / 255)
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, 16:64, 16:64] = True
    masks[1, 40:88, 96:144] = True
    image[:, masks[0]] = torch.tensor([[1.0], [0], [0]])
    image[:, masks[1]] = torch.tensor([[0.0], [0], [1]])
    return image, list(masks)


MARKED = ["extract", "squares.png", "--labels", "ball,cube", "--masks", "one.png", "two.png", "--steps", "4"]


def progress_to(listener: Callable[[Progress], None] | None) -> Callable[[RunEvent], None]:
    """A listener of a run that is told of progress only."""

    def tell(event: RunEvent) -> None:
        if listener is not None and isinstance(event, Progress):
            listener(event)

    return tell
