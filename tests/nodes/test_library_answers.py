"""What the panel is told of the library, and what it is refused; without a host."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from concept_sets import concept_set

from ice_core.library.schema import DATABASE
from ice_core.library.store import Library
from nodes.library_answers import Answer, Request, answer
from nodes.shelf import Shelf


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a library with 1 ball and 2 cube, 3 cone without pictures."""
    with Library(tmp_path / "library") as library:
        library.add(concept_set(), "squares.png", ["garden"])
        bare = concept_set(("cone",), ("coral",), ("metal",), "bare", "stable-diffusion-xl-v1-base")
        library.add(replace(bare, picture=None, sheet=None, found=()))
    return tmp_path / "library"


@pytest.fixture
def shelf(folder: Path) -> Shelf:
    return Shelf(lambda: folder)


def ask(
    shelf: Shelf, path: str = "", *query: tuple[str, str], method: str = "GET", known: str = ""
) -> Answer:
    return answer(shelf, Request(method, path, query, known))


def told(shelf: Shelf, path: str = "", *query: tuple[str, str], method: str = "GET") -> Any:
    given = ask(shelf, path, *query, method=method)
    assert (given.status, given.kind) == (200, "application/json")
    return json.loads(given.body)


def refused(shelf: Shelf, path: str, *query: tuple[str, str], method: str = "GET") -> tuple[int, str]:
    given = ask(shelf, path, *query, method=method)
    assert given.kind == "application/json"
    plain = json.loads(given.body)
    assert list(plain) == ["error"]
    return given.status, plain["error"]


def ids(page: Any) -> list[int]:
    return [one["id"] for one in page["concepts"]]


def test_there_is_told_where_the_library_is_and_what_to_choose_from(shelf: Shelf, folder: Path) -> None:
    overview = told(shelf)
    assert (overview["folder"], overview["exists"], overview["concepts"]) == (str(folder), True, 3)
    assert overview["families"] == {"stable-diffusion-v1": 2, "stable-diffusion-xl-v1-base": 1}
    assert overview["values"]["material"] == {"metal": 2, "wood": 1}


def test_a_page_holds_what_is_asked_for(shelf: Shelf) -> None:
    first = told(shelf, "concepts", ("limit", "2"))
    assert (ids(first), first["total"], first["offset"]) == ([3, 2], 3, 0)
    second = told(shelf, "concepts", ("limit", "2"), ("offset", "2"))
    assert (ids(second), second["total"]) == ([1], 3)
    assert ids(told(shelf, "concepts", ("offset", "100"))) == []
    assert ids(told(shelf, "concepts", ("words", "bal"))) == [1]
    assert ids(told(shelf, "concepts", ("base", "xl"))) == [3]
    assert ids(told(shelf, "concepts", ("has", "material=metal"), ("has", "color=red"))) == [1]
    assert ids(told(shelf, "concepts", ("tag", "garden"), ("tag", "gone"))) == []
    assert ids(told(shelf, "concepts", ("same", "color"), ("like", "1"))) == [3]
    assert ids(told(shelf, "concepts", ("until", "2020-01-01"))) == []
    ball = told(shelf, "concepts", ("words", "ball"))["concepts"][0]
    assert ball["name"] == "ball #1"
    assert ball["properties"] == {"color": "red", "material": "metal"}
    assert ball["thumbnail"]
    assert told(shelf, "concepts", ("words", "cone"))["concepts"][0]["thumbnail"] is None


def test_all_of_a_concept_is_told(shelf: Shelf) -> None:
    ball, cone = told(shelf, "concepts/1"), told(shelf, "concepts/3")
    assert ball["readings"]["color"]["candidates"][0] == {"value": "red", "weight": 0.9}
    assert ball["prompts"][:2] == ["a photo of a {ball}", "{ball.object}"]
    assert (ball["sheet"], ball["problem"], ball["origin"], ball["tags"]) == (
        True,
        None,
        "squares.png",
        ["garden"],
    )
    assert (cone["sheet"], cone["thumbnail"]) == (False, None)


def test_a_damaged_set_is_told_and_its_concept_still_shown(shelf: Shelf, folder: Path) -> None:
    for path in (folder / "sets").iterdir():
        path.write_bytes(b"half")
    ball = told(shelf, "concepts/1")
    assert ball["key"] == "ball"
    assert "cannot read" in ball["problem"]
    status, reason = refused(shelf, "concepts/1/sheet")
    assert (status, "cannot read" in reason) == (409, True)
    assert ask(shelf, "concepts/1/thumbnail").status == 200


def test_thumbnails_are_kept_by_the_page_as_long_as_they_are_the_same(shelf: Shelf) -> None:
    version = told(shelf, "concepts/1")["thumbnail"]
    given = ask(shelf, "concepts/1/thumbnail", ("v", version))
    assert (given.status, given.kind, given.body[:2]) == (200, "image/jpeg", b"\xff\xd8")
    assert "immutable" in given.headers["Cache-Control"]
    assert given.headers["X-Content-Type-Options"] == "nosniff"
    for other in ((), (("v", "another"),)):
        assert ask(shelf, "concepts/1/thumbnail", *other).headers["Cache-Control"] == "private, no-cache"
    tag = given.headers["ETag"]
    again = ask(shelf, "concepts/1/thumbnail", known=f'"other", W/{tag}')
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
    sheet = ask(shelf, "concepts/2/sheet")
    assert (sheet.status, sheet.headers["Cache-Control"]) == (200, "private, no-cache")


def test_a_concept_of_another_library_with_the_same_id_has_another_picture(
    shelf: Shelf, tmp_path: Path
) -> None:
    with Library(tmp_path / "other") as library:
        library.add(concept_set())
    other = Shelf(lambda: tmp_path / "other")
    assert told(shelf, "concepts/1")["thumbnail"] != told(other, "concepts/1")["thumbnail"]


def test_what_is_no_picture_is_not_served_as_one(shelf: Shelf, folder: Path) -> None:
    with Library(folder) as library, library._writing() as connection:
        connection.execute("UPDATE thumbnails SET jpeg = ?", (b"<script>alert(1)</script>",))
    assert refused(shelf, "concepts/1/thumbnail") == (404, "concept 1 has no thumbnail")


def test_a_concept_is_removed_by_its_number_and_by_nothing_else(shelf: Shelf) -> None:
    for path in ("", "concepts", "concepts/", "concepts/1/thumbnail", "concepts/1/sheet", "sets/1"):
        assert ask(shelf, path, method="DELETE").status in (400, 405)
    assert told(shelf)["concepts"] == 3
    assert told(shelf, "concepts/1", method="DELETE") == {"removed": 1, "left": 2}
    assert refused(shelf, "concepts/1", method="DELETE")[0] == 404
    assert ids(told(shelf, "concepts")) == [3, 2]
    assert refused(shelf, "concepts/1")[0] == 404


ODD = (
    "", "abc", "-1", "+1", "1.0", "1e3", " 1", "1 ", "0x1", "\N{ARABIC-INDIC DIGIT ONE}", "9" * 19,
    "9" * 5000, "1;DROP TABLE concepts", "1' OR '1'='1", "..", "%2e%2e", "1\0", "\udc80",
)  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=[repr(odd)[:24] for odd in ODD])
@pytest.mark.parametrize("part", ["", "/thumbnail", "/sheet"])
def test_odd_ids_are_refused(shelf: Shelf, odd: str, part: str) -> None:
    status, reason = refused(shelf, f"concepts/{odd}{part}")
    assert (status, "not a whole number" in reason) == (400, True)
    assert told(shelf)["concepts"] == 3


ESCAPES = (
    "../secret.png", "concepts/../../secret.png", "concepts/1/../../../secret.png", "/etc/passwd", "sets",
    "concepts/1/thumbnail/../../..", "concepts/1/picture", f"sets/{'0' * 64}.safetensors", DATABASE,
    "..\\secret.png", "concepts/1/thumbnail\0", quote("../secret.png", safe=""), "//", "concepts//thumbnail",
)  # fmt: skip


@pytest.mark.parametrize("path", ESCAPES)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_no_address_leads_out_of_the_library(shelf: Shelf, tmp_path: Path, path: str, method: str) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"\x89PNG\r\n\x1a\n of somebody else")
    before = sorted(one for one in tmp_path.rglob("*") if one.is_file() and DATABASE not in one.name)
    status, _ = refused(shelf, path, method=method)
    assert status in (400, 404, 405)
    assert sorted(one for one in tmp_path.rglob("*") if one.is_file() and DATABASE not in one.name) == before


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ([("limit", "0")], "a page of 0"),
        ([("limit", "201")], "at most 200"),
        ([("limit", "-1")], "limit is '-1'"),
        ([("offset", "ten")], "offset is 'ten'"),
        ([("offset", "9" * 30)], "offset is"),
        ([("folder", "/etc")], "no parameter 'folder'"),
        ([("words", "?!")], "holds no word"),
        ([("words", "a" * 201)], "words is too long"),
        ([("words", "\udcff")], "no text"),
        ([("words", "a"), ("words", "b")], "words is given twice"),
        ([("has", "metal")], "material=metal"),
        ([("has", "=metal")], "material=metal"),
        ([("same", "color")], "belong together"),
        ([("same", "color"), ("like", "x")], "like is 'x'"),
        ([("same", "size"), ("like", "1")], "no size was read of concept 1"),
        ([("same", "color"), ("like", "9")], "no concept 9"),
        ([("since", "yesterday")], "is no day"),
    ],
)
def test_bad_questions_are_refused(shelf: Shelf, query: Sequence[tuple[str, str]], message: str) -> None:
    status, reason = refused(shelf, "concepts", *query)
    assert (status, message in reason) == (400, True), reason


def test_a_library_that_is_not_there_is_an_empty_one_and_is_not_made(tmp_path: Path) -> None:
    absent = Shelf(lambda: tmp_path / "absent")
    assert told(absent) == {
        "folder": str(tmp_path / "absent"), "exists": False, "concepts": 0, "families": {}, "values": {}
    }  # fmt: skip
    assert told(absent, "concepts") == {"total": 0, "offset": 0, "concepts": []}
    for method, path in (("GET", "concepts/1"), ("GET", "concepts/1/sheet"), ("DELETE", "concepts/1")):
        status, reason = refused(absent, path, method=method)
        assert (status, "there is no library in" in reason) == (404, True)
    assert not (tmp_path / "absent").exists()


def test_what_is_no_library_is_told(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_text("no database, but a text of some length" * 100)
    status, reason = refused(Shelf(lambda: tmp_path), "concepts")
    assert (status, "cannot open the library" in reason) == (503, True)


def test_a_database_that_breaks_while_it_is_open_is_told(shelf: Shelf) -> None:
    assert told(shelf)["exists"]
    library = shelf.library()
    assert library is not None
    library.close()
    status, reason = refused(shelf, "concepts")
    assert (status, "cannot be read" in reason) == (503, True)
