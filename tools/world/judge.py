"""Stage `judge`: the attribute classifier that scores generated pictures, trained on renders only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.world.judge import JUDGED, Judge
from world.checkpoint import Log, learning_rate
from world.data import RenderedSet

BATCH, PEAK_RATE = 64, 2e-3


def _targets(data: RenderedSet) -> dict[str, Tensor]:
    def value(scene, axis: str) -> str:  # type: ignore[no-untyped-def]
        return scene.ground if axis == "ground" else scene.objects[0].value(axis)

    return {
        axis: torch.tensor([values.index(value(s, axis)) for s in data.scenes])
        for axis, values in JUDGED.items()
    }


def _augment(x: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror, soften and grain, so that slightly blurred pictures are not strange to the judge."""
    if torch.rand((), generator=rng) < 0.5:
        x = x.flip(-1)
    if torch.rand((), generator=rng) < 0.5:
        share = torch.rand((), generator=rng)
        x = share * x + (1 - share) * F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    gain = 0.9 + 0.2 * torch.rand(len(x), 1, 1, 1, generator=rng)
    x = x * gain + 0.03 * torch.rand((), generator=rng) * torch.randn(x.shape, generator=rng)
    return x.clamp(0, 1)


def train(data: RenderedSet, steps: int, device: torch.device) -> Judge:
    torch.manual_seed(0)
    judge = Judge().to(device)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=PEAK_RATE, weight_decay=0.02)
    rng, targets, log = torch.Generator().manual_seed(2), _targets(data), Log("judge")
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / steps, PEAK_RATE)
        picked = torch.randint(len(data.images), (BATCH,), generator=rng)
        x = _augment(data.images[picked].float() / 255, rng).to(device)
        logits = judge(x)
        loss = sum(
            F.cross_entropy(logits[a], targets[a][picked].to(device), label_smoothing=0.02) for a in JUDGED
        )
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log.add(step + 1, steps, BATCH, loss=loss.item())
    return judge.eval()


@torch.no_grad()
def accuracy(judge: Judge, data: RenderedSet, device: torch.device) -> dict[str, float]:
    """Share of right values per axis on a rendered set."""
    targets = _targets(data)
    right = dict.fromkeys(JUDGED, 0.0)
    for picked in torch.arange(len(data.images)).split(256):
        logits = judge((data.images[picked].float() / 255).to(device))
        for axis in JUDGED:
            right[axis] += (logits[axis].argmax(-1).cpu() == targets[axis][picked]).sum().item()
    return {axis: n / len(data.images) for axis, n in right.items()}
