"""What is drawn of an object: its tokens, each property elsewhere, and all of them on another object."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tokens import learned

from ice_core.composition import written
from ice_core.figures.shots import COMPOSED, plan

WORDS = ("ball", "cup", "box")
BALL, CUBE, SECOND = learned(("ball", "cube", "ball-2")).concepts


def test_a_property_is_shown_on_the_other_object_of_the_picture_with_and_without_its_token() -> None:
    shots = plan(BALL, [BALL, CUBE], WORDS, noises=4)
    color, material = shots.transfers
    assert (color.axis, color.other) == ("color", "cube")
    assert [written(shot.prompt) for shot in color.withs] == ["a photo of a {ball.color} cube"] * 4
    assert [shot.noise for shot in color.withs] == [0, 1, 2, 3]
    assert (written(color.without.prompt), color.without.noise) == ("a photo of a cube", 0)
    assert material.without.key == color.without.key


def test_without_another_kind_of_object_properties_are_shown_on_plain_words() -> None:
    for every in ([BALL], [BALL, SECOND]):
        assert [t.other for t in plan(BALL, every, WORDS).transfers] == ["cup", "box"]


def test_a_name_that_is_no_plain_word_is_not_put_beside_a_token() -> None:
    long = replace(CUBE, label="cube " * 9)
    assert plan(BALL, [BALL, long], WORDS).transfers[0].other == "cup"


def test_objects_are_put_together_in_both_directions() -> None:
    there, back = (plan(c, [BALL, CUBE], WORDS).compositions for c in (BALL, CUBE))
    assert [(c.thing, len(c.shots)) for c in (*there, *back)] == [("cube", COMPOSED), ("ball", COMPOSED)]
    assert written(there[0].shots[0].prompt) == "a photo of a {ball.color} {ball.material} {cube.object}"
    assert written(back[0].shots[0].prompt) == "a photo of a {cube.color} {cube.material} {ball.object}"


def test_with_three_objects_each_gives_its_look_to_the_next() -> None:
    every = [BALL, CUBE, SECOND]
    assert [plan(c, every, WORDS).compositions[0].thing for c in every] == ["cube", "ball-2", "ball"]


def test_a_lone_object_gives_its_look_to_two_plain_words() -> None:
    compositions = plan(BALL, [BALL], WORDS).compositions
    assert [(c.thing, c.neighbour) for c in compositions] == [("cup", None), ("box", None)]
    assert written(compositions[0].shots[0].prompt) == "a photo of a {ball.color} {ball.material} cup"


@pytest.mark.parametrize("every", [[BALL], [BALL, CUBE]])
def test_an_object_without_properties_has_nothing_to_give(every: list) -> None:
    bare = replace(BALL, intrinsics={})
    shots = plan(bare, [bare, *every[1:]], WORDS)
    assert (shots.transfers, shots.compositions) == ((), ())
    assert list(shots.showcase) == ["whole object", "object token"]


def test_no_picture_is_drawn_twice() -> None:
    shots = plan(BALL, [BALL, CUBE], WORDS, noises=4).every
    assert len({shot.key for shot in shots}) == len(shots) == 4 + 2 * 4 + 1 + COMPOSED


def test_properties_of_one_object_are_drawn_from_one_noise() -> None:
    shots = plan(BALL, [BALL, CUBE], WORDS).showcase
    assert {shots[axis].noise for axis in BALL.intrinsics} == {2}
