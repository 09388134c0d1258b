"""Training state on disk: written atomically, so that a killed run goes on where it was."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


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
        current = [value.float() for value in module.state_dict().values()]
        torch._foreach_lerp_(list(self.state.values()), current, 1 - decay)

    def load(self, state: dict[str, Tensor]) -> None:
        for key, value in self.state.items():
            value.copy_(state[key])


@dataclass
class Budget:
    """How much of a stage is done: of its steps, or of its minutes where that is more.

    A machine that is rented by the hour is best used by the clock, which runs from the first `done`. spent:
    seconds of earlier runs that went by the clock; those that went by steps count none.
    """

    steps: int
    minutes: float | None = None
    spent: float = 0.0
    since: float | None = None

    def seconds(self) -> float:
        if not self.minutes or self.since is None:
            return self.spent
        return self.spent + time.monotonic() - self.since

    def done(self, step: int) -> float:
        """The share that lies behind before this step, 1 or more where the stage is at its end."""
        self.since = time.monotonic() if self.since is None else self.since
        if not self.steps:
            return 1.0
        return max(step / self.steps, self.seconds() / (60 * self.minutes) if self.minutes else 0.0)


@dataclass
class Due:
    """True once in so many seconds: when to save a state."""

    seconds: float = 60.0
    last: float = field(default_factory=time.monotonic)

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self.last < self.seconds:
            return False
        self.last = now
        return True


@dataclass
class Log:
    """Prints running means every `every` steps with samples per second."""

    name: str
    every: int = 50
    sums: dict[str, float | Tensor] = field(default_factory=dict)
    count: int = 0
    since: float = field(default_factory=time.monotonic)

    def add(self, step: int, total: int, batch: int, **values: float | Tensor) -> None:
        """Tensors are read when they are printed: a step does not wait for an accelerator."""
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + (
                value.detach() if isinstance(value, Tensor) else value
            )
        self.count += 1
        if self.count == self.every:
            speed = self.count * batch / (time.monotonic() - self.since)
            means = "  ".join(f"{k} {float(v) / self.count:.4f}" for k, v in self.sums.items())
            print(f"{self.name} {step}/{total}  {means}  {speed:.0f}/s", flush=True)
            self.sums, self.count, self.since = {}, 0, time.monotonic()
