"""Pictures in one step, where what is on them does not matter: drawing takes most of the time, and the
commands have no option for its steps."""

from __future__ import annotations

from typing import Any

import pytest

from ice_core.model.sampling import SamplingConfig


def draw_quickly(patch: pytest.MonkeyPatch) -> None:
    """Every picture from now on is drawn in one step, without guidance."""
    plain = SamplingConfig.__init__

    def quick(self: SamplingConfig, *arguments: Any, **named: Any) -> None:
        plain(self, *arguments, **named)
        for name, value in (("steps", 1), ("guidance", 1.0), ("eta", 0.0)):
            object.__setattr__(self, name, value)

    patch.setattr(SamplingConfig, "__init__", quick)
