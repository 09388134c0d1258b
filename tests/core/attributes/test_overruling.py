from __future__ import annotations

import pytest
from training_runs import scene

from ice_core.attributes.overruling import check_overruled, overrule
from ice_core.attributes.values import Axis, Candidate, Reading, said
from ice_core.errors import IceError
from ice_core.run.reading import Question

AXES = (Axis("color", ("red", "blue")), Axis("material", ("metal", "glass")))
READ = {
    key: {axis.name: Reading(axis.name, (Candidate(axis.values[0], 0.6),), "clip") for axis in AXES}
    for key in ("ball-0", "cube-1")
}


def test_a_users_word_takes_the_place_of_what_was_read() -> None:
    readings = overrule(READ, ["ball-0.material = hammered  brass", "cube-1.color="], scene(), AXES)
    assert readings["ball-0"]["material"] == said("material", "hammered brass")
    assert readings["cube-1"]["color"].value is None
    assert readings["cube-1"]["color"].reader == "user"
    assert readings["ball-0"]["color"] == READ["ball-0"]["color"]
    assert READ["ball-0"]["material"].value == "metal"


@pytest.mark.parametrize("text", ["ball-0", "ball-0.mood=sad"])
def test_what_no_object_could_make_good_is_refused_before_there_are_objects(text: str) -> None:
    check_overruled(["vase.color=red"], AXES)
    with pytest.raises(IceError, match=text):
        Question(AXES, (text,))


def test_a_word_that_is_said_has_the_degrees_of_its_axis() -> None:
    degrees = (("narrow", "wide"),)
    axis = Axis("pattern", ("plain", "striped"), degrees)
    told = ["ball-0.pattern=striped", "cube-1.pattern=plain"]
    readings = overrule({}, told, scene(), [axis])
    assert readings["ball-0"]["pattern"].degrees == degrees
    assert readings["cube-1"]["pattern"].degrees == ()


def test_a_word_can_be_said_where_nothing_was_read() -> None:
    readings = overrule({}, ["ball-0.color=red"], scene(), AXES)
    assert readings == {"ball-0": {"color": said("color", "red")}, "cube-1": {}}


@pytest.mark.parametrize(
    ("texts", "wrong"),
    [
        (["vase.color=red"], "ball-0, cube-1"),
        (["ball-0.mood=sad"], "color, material"),
        (["ball-0=red"], "vase.material=ceramic"),
        (["ball-0.color"], "vase.material=ceramic"),
        (["ball-0.color=red", "ball-0.color=blue"], "twice"),
    ],
)
def test_what_is_not_there_cannot_be_said(texts: list[str], wrong: str) -> None:
    with pytest.raises(IceError, match=wrong):
        overrule(READ, texts, scene(), AXES)
