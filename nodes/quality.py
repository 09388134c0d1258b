"""How long a training takes, in words instead of steps."""

from __future__ import annotations

from ice_core.run.defaults import ANCHORED_STEPS, BUNDLED_STEPS, CHECKPOINT_STEPS

QUICK, USUAL, THOROUGH, AS_SET = "quick", "usual", "thorough", "steps as set"
QUALITIES = (QUICK, USUAL, THOROUGH, AS_SET)
_SHARE = {QUICK: 0.25, USUAL: 1.0, THOROUGH: 2.0}


def steps_for(quality: str, method: str, demo: bool, steps: int) -> int:
    """Steps of a training at most. demo: whether it is of the bundled model, which learns faster than a
    large one; steps: what the user set, for `AS_SET`."""
    if method == "words":
        return 0
    if quality == AS_SET:
        return steps
    large = BUNDLED_STEPS if demo else CHECKPOINT_STEPS
    return round(_SHARE[quality] * (ANCHORED_STEPS if method == "anchored" else large))
