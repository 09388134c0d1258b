"""The judge: an attribute classifier trained on renders alone, never on generated pictures."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ice_core.world.scenes import AXES, GROUNDS

JUDGED: dict[str, tuple[str, ...]] = {**AXES, "ground": GROUNDS}
WEIGHTS = Path(__file__).parent / "weights" / "judge.safetensors"


def _block(inside: int, outside: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )


class Judge(nn.Module):
    """Pictures [B, 3, 128, 128] in 0..1 with one object -> logits per axis, {axis: [B, values]}."""

    def __init__(self) -> None:
        super().__init__()
        widths = (24, 48, 96, 160)
        layers: list[nn.Module] = [_block(3, 24, 2)]
        for inside, outside in zip((24, *widths), widths, strict=False):
            layers += [_block(inside, outside, 2), _block(outside, outside, 1)]
        self.trunk = nn.Sequential(*layers)
        self.drop = nn.Dropout(0.1)
        self.heads = nn.ModuleDict({axis: nn.Linear(320, len(v)) for axis, v in JUDGED.items()})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.trunk(images * 2 - 1)
        pooled = self.drop(torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1))
        return {axis: head(pooled) for axis, head in self.heads.items()}

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> dict[str, Tensor]:
        return {axis: logits.softmax(-1) for axis, logits in self(images).items()}

    @torch.no_grad()
    def values(self, images: Tensor) -> list[dict[str, str]]:
        """The most probable value per axis of each picture."""
        best = {axis: logits.argmax(-1).tolist() for axis, logits in self(images).items()}
        return [
            {axis: JUDGED[axis][index[row]] for axis, index in best.items()} for row in range(len(images))
        ]


def load_judge() -> Judge:
    """The bundled judge, in evaluation mode."""
    judge = Judge()
    judge.load_state_dict(load_file(WEIGHTS))
    return judge.eval()
