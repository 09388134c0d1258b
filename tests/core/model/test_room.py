"""How much a prompt holds."""

from __future__ import annotations

from fakes import FakeBackbone

from ice_core.model.room import pieces, with_room


def test_groups_are_said_while_there_is_room_for_the_whole_of_each() -> None:
    groups = [["and a", "red"], ["ball"], ["two words", "more"], ["cube"]]
    assert with_room(FakeBackbone(), 6, groups) == ["and a", "red", "ball"]
    assert with_room(FakeBackbone(), 7, groups) == ["and a", "red", "ball", "two words", "more"]
    assert with_room(FakeBackbone(), 2, groups) == []


def test_what_is_no_text_takes_no_room() -> None:
    assert pieces(FakeBackbone(), " ") == 0
    assert pieces(FakeBackbone(), "teddy bear") == 2
