"""Which library the nodes take, and what they take out of it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from concept_sets import concept_set

from ice_core.errors import IceError
from ice_core.library.place import VARIABLE
from ice_core.library.store import Library
from nodes import shelf
from nodes.shelf import Shelf, named


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a library with 1 ball and 2 cube, 3 a newer ball."""
    with Library(tmp_path / "library") as library:
        library.add(concept_set(title="first"))
        library.add(concept_set(("ball",), ("coral",), ("wood",), "second"))
    return tmp_path / "library"


@pytest.fixture
def filled(folder: Path) -> Shelf:
    return Shelf(lambda: folder)


def picked(filled: Shelf, concept: str = "", words: str = "") -> tuple[str, int]:
    entry, others = filled.pick(concept, words)
    return named(entry), others


def test_a_library_lies_in_the_hosts_folder_unless_the_environment_names_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "folder_paths", SimpleNamespace(base_path=str(tmp_path)))
    monkeypatch.delenv(VARIABLE, raising=False)
    assert shelf.folder() == tmp_path / "ice-library"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "mine"))
    assert shelf.folder() == tmp_path / "mine"


def test_a_concept_is_picked_by_name_by_number_and_by_words(filled: Shelf) -> None:
    assert picked(filled, "ball #1") == ("ball #1", 0)
    assert picked(filled, " #2 ") == ("cube #2", 0)
    assert picked(filled, "Ball") == ("ball #3", 1)
    assert picked(filled, "ball", "red") == ("ball #1", 0)
    assert picked(filled, words="blue") == ("cube #2", 0)
    assert picked(filled, words="wood") in (("cube #2", 1), ("ball #3", 1))


@pytest.mark.parametrize(
    ("concept", "words", "message"),
    [
        ("", " ", "name a concept"),
        ("cube #1", "", "no concept cube #1; there are for example cube #2"),
        ("#9", "", "no concept #9; there are for example ball #3, cube #2, ball #1"),
        ("vase", "", "no concept named 'vase'; there are for example ball #3"),
        ("ball", "blue", "named 'ball' and with the words 'blue'; there are for example ball #3, ball #1"),
        ("", "!?", "holds no word"),
        ("../sets", "", "no concept named '../sets'"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(
    filled: Shelf, concept: str, words: str, message: str
) -> None:
    with pytest.raises(IceError, match=r"library|name|word") as refused:
        filled.pick(concept, words)
    assert message in str(refused.value)


def test_without_a_library_there_is_said_how_to_make_one(tmp_path: Path) -> None:
    absent = Shelf(lambda: tmp_path / "absent")
    assert absent.library() is None
    with pytest.raises(IceError, match="ICE Save Concepts makes one"):
        absent.pick("ball", "")
    assert not (tmp_path / "absent").exists()


def test_what_is_kept_is_there_for_those_who_have_the_library_open(filled: Shelf, tmp_path: Path) -> None:
    assert filled.library() is filled.library()
    assert filled.keep(concept_set(("cone",), title="third"), "a test") == (4,)
    assert picked(filled, "cone") == ("cone #4", 0)
    assert filled.load("cone", "").learned.concepts[0].key == "cone"
    assert filled.remove(4) == 3
    with pytest.raises(IceError, match="no concept"):
        filled.pick("cone", "")
    new = Shelf(lambda: tmp_path / "new")
    assert new.keep(concept_set(), "a test") == (1, 2)
    assert picked(new, "#1") == ("ball #1", 0)


def test_another_library_in_the_place_of_the_first_is_seen(filled: Shelf, folder: Path) -> None:
    assert picked(filled, "ball") == ("ball #3", 1)
    shutil.rmtree(folder)
    assert filled.library() is None
    with Library(folder) as library:
        library.add(concept_set(("cone",)))
    assert picked(filled, "cone") == ("cone #1", 0)


def test_a_prompt_may_name_what_is_picked(filled: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "SHELF", filled)
    assert "cube.color" in shelf.names_in_library("cube", "")
    with pytest.raises(IceError, match="no concept"):
        shelf.names_in_library("vase", "")
