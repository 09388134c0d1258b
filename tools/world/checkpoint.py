"""Training state on disk: written atomically, so that a killed run goes on where it was."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn


def save_state(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def load_state(path: Path) -> dict[str, Any] | None:
    return torch.load(path, weights_only=True, map_location="cpu") if path.exists() else None


def learning_rate(done: float, peak: float, warmup: float = 0.02, decay_from: float = 0.5) -> float:
    """Warm up, stay at the peak, then fall linearly to 2 % (`done` is the share of the budget)."""
    if done < warmup:
        return peak * (0.05 + 0.95 * done / warmup)
    if done < decay_from:
        return peak
    return peak * (0.02 + 0.98 * max(0.0, 1 - done) / (1 - decay_from))


class Average:
    """Exponential moving average of a module's parameters and buffers (Polyak)."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().float().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in module.state_dict().items():
            self.state[key].lerp_(value.float(), 1 - decay)


@dataclass
class Log:
    """Prints running means every `every` steps with samples per second."""

    name: str
    every: int = 50
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    since: float = field(default_factory=time.monotonic)

    def add(self, step: int, total: int, batch: int, **values: float) -> None:
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.count += 1
        if self.count == self.every:
            speed = self.count * batch / (time.monotonic() - self.since)
            means = "  ".join(f"{k} {v / self.count:.4f}" for k, v in self.sums.items())
            print(f"{self.name} {step}/{total}  {means}  {speed:.0f}/s", flush=True)
            self.sums, self.count, self.since = {}, 0, time.monotonic()
