"""Short trainings on the fake model, for the tests of training."""

from __future__ import annotations

import torch
from fakes import FakeBackbone
from torch import Tensor

from ice_core.concepts import Concept, ConceptSet, LearnedConcepts, Readings
from ice_core.model.attention import AttentionRecorder
from ice_core.model.backbone import TextFeatures
from ice_core.model.lora import Lora
from ice_core.training import (
    Finished,
    StepDone,
    TrainingConfig,
    TrainingState,
    train,
)


def scene(*labels: str, size: tuple[int, int] = (64, 64)) -> ConceptSet:
    """A picture with one upright band of its own colour per label."""
    height, width = size
    labels = labels or ("ball", "cube")
    rng = torch.Generator().manual_seed(3)
    image = torch.full((3, height, width), 0.5)
    concepts = []
    for i, label in enumerate(labels):
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[8:-8, i * width // len(labels) : (i + 1) * width // len(labels) - 8] = True
        image[:, mask] = torch.rand(3, 1, generator=rng)
        concepts.append(Concept(f"{label.replace(' ', '-')}-{i}", label, mask, 1.0))
    return ConceptSet(image, tuple(concepts), torch.zeros(height, width, dtype=torch.bool))


SHORT = TrainingConfig(
    steps=8, learning_rate=1.3e-4, snapshot_every=4, alignment_iterations=10, method="paper"
)


def run(
    concepts: ConceptSet | None = None,
    config: TrainingConfig = SHORT,
    backbone: FakeBackbone | None = None,
    resume: TrainingState | None = None,
    readings: Readings | None = None,
) -> tuple[list[StepDone], LearnedConcepts]:
    events = list(train(backbone or FakeBackbone(), concepts or scene(), config, readings, resume))
    assert isinstance(events[-1], Finished)
    return [event for event in events if isinstance(event, StepDone)], events[-1].learned


def same(one: LearnedConcepts, other: LearnedConcepts) -> bool:
    first, second = one.tokens, other.tokens
    return first.keys() == second.keys() and all(
        torch.equal(first[name].rows[k], second[name].rows[k]) for name in first for k in first[name].rows
    )


class Breaking(FakeBackbone):
    """Predicts NaN from the n-th gradient-carrying call on."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: TextFeatures,
        recorder: AttentionRecorder | None = None,
        lora: Lora | None = None,
    ) -> Tensor:
        output = super().predict(noisy, timesteps, text, recorder, lora)
        if torch.is_grad_enabled():
            self.left -= 1
        return output * float("nan") if self.left < 0 else output
