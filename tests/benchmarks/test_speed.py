"""`benchmarks/speed.py` and `benchmarks/full_size.py` measure steps of both phases, past snapshots."""

from __future__ import annotations

import pytest
from full_size import training
from speed import measure, scene_concepts

from ice_core.world.bundled import load_bundled_backbone


def test_both_phases_are_measured() -> None:
    figures = measure(load_bundled_backbone(), scene_concepts(128, 0), 1, warmup=0)
    assert set(figures["step_over_bare_by_phase"]) == {"phase_1", "phase_2"}


def test_a_step_of_true_shape_is_of_the_dearer_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("full_size.peak", lambda work, device: work())
    found = training(load_bundled_backbone(), scene_concepts(128, 0), 4)
    assert found["step_over_bare"] > 0
