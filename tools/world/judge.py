"""Stage `judge`: what scores generated pictures, trained on renders only."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.world.colors import lab, lab_difference
from world.checkpoint import Budget, Log, learning_rate
from world.data import RenderedSet
from world.judging import GAUGES, JUDGED, Judge
from world.muon import optimizers, set_share
from world.scale import scale_for

MUON_RATE, PEAK_RATE = 0.02, 2e-3
GAUGE_WEIGHT = 4.0


def _targets(data: RenderedSet) -> dict[str, Tensor]:
    def value(scene, axis: str) -> str:  # type: ignore[no-untyped-def]
        return scene.ground if axis == "ground" else scene.objects[0].value(axis)

    return {
        axis: torch.tensor([values.index(value(s, axis)) for s in data.scenes])
        for axis, values in JUDGED.items()
    }


def _gauges(data: RenderedSet) -> tuple[dict[str, Tensor], Tensor]:
    """What the judge's gauges should say [N, size], and whether an object has a pattern [N]."""
    items = [s.objects[0] for s in data.scenes]
    wanted = {
        "base": torch.tensor(lab([o.paint for o in items])).float() / 100,
        "second": torch.tensor(lab([o.second_rgb for o in items])).float() / 100,
        "scale": torch.tensor([o.scale for o in items]).log()[:, None],
    }
    return wanted, torch.tensor([o.pattern != "plain" for o in items])


def _augment(x: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror, soften and grain, so that slightly blurred pictures are not strange to the judge."""

    def drawn(*size: int) -> Tensor:
        return torch.rand(size, generator=rng, device=rng.device)

    if drawn() < 0.5:
        x = x.flip(-1)
    if drawn() < 0.5:
        share = drawn()
        x = share * x + (1 - share) * F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    # Little of it: brightness is part of what the gauges read.
    gain = 0.97 + 0.06 * drawn(len(x), 1, 1, 1)
    x = x * gain + 0.03 * drawn() * torch.randn(x.shape, generator=rng, device=rng.device)
    return x.clamp(0, 1)


def train(
    data: RenderedSet,
    steps: int,
    device: torch.device,
    initial: dict[str, Tensor] | None = None,
    minutes: float | None = None,
) -> Judge:
    """Train for `steps` or `minutes`, from nothing or from those `initial` weights that still fit."""
    torch.manual_seed(0)
    judge = Judge().to(device, memory_format=torch.channels_last)
    own = judge.state_dict()
    fitting = {k: v for k, v in (initial or {}).items() if k in own and own[k].shape == v.shape}
    judge.load_state_dict(own | fitting)
    active = optimizers(judge, MUON_RATE, PEAK_RATE, weight_decay=0.02)
    rng, log, budget = torch.Generator(device).manual_seed(2), Log("judge"), Budget(steps, minutes)
    images, targets = data.images.to(device), {a: t.to(device) for a, t in _targets(data).items()}
    wanted, patterned = _gauges(data)
    gauges, patterned = {name: t.to(device) for name, t in wanted.items()}, patterned.to(device).float()
    step, batch = 0, scale_for(device).judge_batch
    while (done := budget.done(step)) < 1:
        set_share(active, learning_rate(done, 1.0))
        picked = torch.randint(len(images), (batch,), generator=rng, device=device)
        x = _augment(images[picked].float() / 255, rng)
        with torch.autocast(device.type, torch.bfloat16):
            logits = judge(x.contiguous(memory_format=torch.channels_last))
        logits = {name: value.float() for name, value in logits.items()}
        loss = sum(F.cross_entropy(logits[a], targets[a][picked], label_smoothing=0.02) for a in JUDGED)
        assert isinstance(loss, Tensor)
        for name in GAUGES:
            error = (logits[name] - gauges[name][picked]).abs().mean(1)
            counts = torch.ones_like(error) if name == "base" else patterned[picked]
            loss = loss + GAUGE_WEIGHT * (error * counts).sum() / counts.sum().clamp(min=1)
        for optimizer in active:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in active:
            optimizer.step()
        step += 1
        log.add(step, steps, batch, loss=loss)
    return judge.eval()


@torch.no_grad()
def accuracy(judge: Judge, data: RenderedSet, device: torch.device) -> dict[str, float]:
    """Share of right values per axis on a rendered set, and the gauges' median errors."""
    targets = _targets(data)
    right = dict.fromkeys(JUDGED, 0.0)
    for picked in torch.arange(len(data.images)).split(256):
        logits = judge((data.images[picked].float() / 255).to(device))
        for axis in JUDGED:
            right[axis] += (logits[axis].argmax(-1).cpu() == targets[axis][picked]).sum().item()
    return {axis: n / len(data.images) for axis, n in right.items()} | gauge_errors(judge, data, device)


@torch.no_grad()
def gauge_errors(judge: Judge, data: RenderedSet, device: torch.device) -> dict[str, float]:
    """Median CIEDE2000 of both paints, and median relative error of the pattern's scale."""
    wanted, patterned = _gauges(data)
    parts = [judge.measures(x.to(device).float() / 255) for x in data.images.split(256)]
    base, second, scale = (torch.cat([getattr(p, name).cpu() for p in parts]) for name in GAUGES)
    scale_error = (scale.log() - wanted["scale"][:, 0]).abs()[patterned]
    return {
        "base_ciede2000": float(np.median(lab_difference(base.numpy(), 100 * wanted["base"].numpy()))),
        "second_ciede2000": float(
            np.median(lab_difference(second[patterned].numpy(), 100 * wanted["second"][patterned].numpy()))
        ),
        "scale_relative": float(scale_error.median()),
    }
