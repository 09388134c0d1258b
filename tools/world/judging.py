"""The judge: a classifier and gauge of attributes, trained on renders alone, never on generated pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ice_core.world.scenes import AXES, GROUNDS

JUDGED: dict[str, tuple[str, ...]] = {**AXES, "ground": GROUNDS}
GAUGES = {"base": 3, "second": 3, "scale": 1}
"""What it reads as numbers: CIELAB / 100 of both paints, and the log of the pattern's scale."""
WEIGHTS = Path(__file__).parent / "weights" / "judge.safetensors"


def _block(inside: int, outside: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )


@dataclass(frozen=True)
class Measures:
    """base, second: CIELAB [B, 3] of the two paints; scale: factor [B] on a pattern's size.

    The last two mean nothing where an object is plain.
    """

    base: Tensor
    second: Tensor
    scale: Tensor


class Judge(nn.Module):
    """Pictures [B, 3, 128, 128] in 0..1 with one object -> logits per axis, {axis: [B, values]}, and what
    `GAUGES` names."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128, 192)
        layers: list[nn.Module] = [_block(3, 32, 2)]
        for inside, outside in zip((32, *widths), widths, strict=False):
            layers += [_block(inside, outside, 2), _block(outside, outside, 1)]
        self.trunk = nn.Sequential(*layers)
        self.drop = nn.Dropout(0.1)
        sizes = {axis: len(values) for axis, values in JUDGED.items()} | GAUGES
        self.heads = nn.ModuleDict({name: nn.Linear(2 * widths[-1], size) for name, size in sizes.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        pooled = self.drop(self._pooled(images))
        return {axis: head(pooled) for axis, head in self.heads.items()}

    def _pooled(self, images: Tensor) -> Tensor:
        features = self.trunk(images * 2 - 1)
        return torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> dict[str, Tensor]:
        seen = self(images)
        return {axis: seen[axis].softmax(-1) for axis in JUDGED}

    @torch.no_grad()
    def measures(self, images: Tensor) -> Measures:
        """The numbers below the names, of each picture."""
        seen = self(images)
        return Measures(100 * seen["base"], 100 * seen["second"], seen["scale"][:, 0].exp())

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What its answers are read off: [B, 384]."""
        return self._pooled(images)

    @torch.no_grad()
    def values(self, images: Tensor) -> list[dict[str, str]]:
        """The most probable value per axis of each picture."""
        seen = self(images)
        best = {axis: seen[axis].argmax(-1).tolist() for axis in JUDGED}
        return [
            {axis: JUDGED[axis][index[row]] for axis, index in best.items()} for row in range(len(images))
        ]


def load_judge() -> Judge:
    """The bundled judge, in evaluation mode."""
    judge = Judge()
    judge.load_state_dict(load_file(WEIGHTS))
    return judge.eval()
