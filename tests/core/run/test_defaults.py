"""Defaults that are written where importing them is quick say what the settings say."""

from __future__ import annotations

from typing import get_args

from ice_core.run import defaults
from ice_core.training.config import STEPS, Method, TrainingConfig


def test_methods_and_their_steps_are_those_of_the_settings() -> None:
    assert get_args(Method) == defaults.METHODS
    assert STEPS["anchored"] == defaults.ANCHORED_STEPS
    assert STEPS["paper"] == STEPS["inversion"] == defaults.CHECKPOINT_STEPS
    plain = TrainingConfig()
    assert (plain.method, plain.axes) == (defaults.METHOD, defaults.AXES)
