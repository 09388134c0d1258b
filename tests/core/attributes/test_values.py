import pytest

from ice_core.attributes.values import Axis, Candidate, Reading, said
from ice_core.errors import IceError


def test_a_reading_that_does_not_fit_has_no_value() -> None:
    candidates = (Candidate("metal", 0.3), Candidate("glass", 0.25))
    assert Reading("material", candidates, "clip").value == "metal"
    assert Reading("material", candidates, "clip", fits=False).value is None
    assert Reading("mood", (), "clip").value is None


def test_a_user_is_certain() -> None:
    assert said("material", "ceramic") == Reading("material", (Candidate("ceramic", 1.0),), "user")


@pytest.mark.parametrize("values", [("matte", ""), ("matte", "matte")])
def test_values_that_cannot_be_told_apart_are_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(IceError, match="finish"):
        Axis("finish", values)
