"""How long a training takes, by the words that say so."""

from __future__ import annotations

import pytest

from ice_core.run.defaults import ANCHORED_STEPS, BUNDLED_STEPS, CHECKPOINT_STEPS
from nodes.quality import AS_SET, QUALITIES, QUICK, THOROUGH, USUAL, steps_for


@pytest.mark.parametrize(
    ("method", "demo", "usual"),
    [
        ("anchored", True, ANCHORED_STEPS),
        ("anchored", False, ANCHORED_STEPS),
        ("paper", True, BUNDLED_STEPS),
        ("inversion", False, CHECKPOINT_STEPS),
    ],
)
def test_steps_follow_what_method_and_model_need(method: str, demo: bool, usual: int) -> None:
    assert steps_for(USUAL, method, demo, 7) == usual
    assert steps_for(QUICK, method, demo, 7) * 4 == usual
    assert steps_for(THOROUGH, method, demo, 7) == 2 * usual
    assert steps_for(AS_SET, method, demo, 7) == 7


def test_words_alone_need_no_steps() -> None:
    assert {steps_for(quality, "words", True, 7) for quality in QUALITIES} == {0}
