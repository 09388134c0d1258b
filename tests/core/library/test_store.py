"""Keeping, finding, removing and checking concepts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from concept_sets import concept_set
from judges import ColorBlindToAllElse
from numpy.typing import NDArray

from ice_core.errors import IceError
from ice_core.files.concept_set import SavedConcepts
from ice_core.library import schema
from ice_core.library.entries import Overview, Query
from ice_core.library.store import Library


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library(tmp_path / "library") as opened:
        yield opened


def found(library: Library, **asked: object) -> list[str]:
    return [hit.entry.key for hit in library.search(Query(**asked))]  # type: ignore[arg-type]


def embedded(towers: ColorBlindToAllElse, color: tuple[float, float, float]) -> NDArray[np.float32]:
    """Of a picture of one color."""
    picture = torch.tensor(color, dtype=torch.float32)[None, :, None, None].expand(1, 3, 32, 32)
    return towers.encode_images(picture)[0].numpy()


def same(first: SavedConcepts, second: SavedConcepts) -> bool:
    """Whether tokens, masks and readings of two sets are equal."""
    a, b = first.learned, second.learned
    tokens = a.tokens.keys() == b.tokens.keys() and all(
        torch.equal(rows, b.tokens[name].rows[encoder])
        for name, token in a.tokens.items()
        for encoder, rows in token.rows.items()
    )
    masks = [(c.key, c.mask.tolist()) for c in first.found] == [
        (c.key, c.mask.tolist()) for c in second.found
    ]
    return tokens and masks and [c.readings for c in a.concepts] == [c.readings for c in b.concepts]


def test_a_set_comes_back_as_it_was_added(library: Library) -> None:
    saved = concept_set()
    ids = library.add(saved, "a test", ["still life", "red"])
    assert len(ids) == library.count() == 2
    (back,) = library.load(*ids)
    assert same(back, saved)
    assert (back.sheet, back.picture, back.settings) == (saved.sheet, saved.picture, saved.settings)
    entry = library.entry(ids[0])
    assert (entry.key, entry.label, entry.score, entry.origin) == ("ball", "ball", 0.8, "a test")
    assert entry.properties == {"color": "red", "material": "metal"}
    assert entry.tags == ("red", "still life")
    assert entry.prompts == ("a photo of a {ball}", "{ball.object}", "{ball.color}", "{ball.material}")
    thumbnail = library.thumbnail(ids[0])
    assert thumbnail is not None
    assert thumbnail.startswith(b"\xff\xd8")


def test_what_is_there_is_not_added_again(library: Library) -> None:
    ids = library.add(concept_set(), job="first")
    assert library.add(concept_set(), job="second") == ids
    assert library.count() == 2
    assert library.finished("second") == ids
    assert library.finished("third") is None
    again = library.add(concept_set(title="anew"), job="second")
    assert library.finished("second") == again


def test_words_properties_families_and_days_find_and_narrow(library: Library) -> None:
    library.add(concept_set(), tags=["garden"])
    library.add(
        concept_set(("cone",), ("coral",), ("metal",), "a cone's picture", "stable-diffusion-xl-v1-base")
    )
    assert found(library) == ["cone", "cube", "ball"]
    assert found(library, words="bal") == ["ball"]
    assert found(library, words="balls red") == ["ball"]
    assert found(library, words="cone's pict") == ["cone"]
    assert found(library, words="garden metal") == ["ball"]
    assert found(library, words='"red" OR -blue*') == []
    assert found(library, base="xl") == ["cone"]
    assert found(library, tags=("garden",), has={"material": "wood"}) == ["cube"]
    assert found(library, tags=("gard",)) == []
    assert found(library, until="2020-01-01") == []
    assert found(library, since="2020-01-01", limit=1, offset=1) == ["cube"]
    assert library.count(Query(words="metal")) == 2


def test_a_name_finds_what_is_called_so_and_nothing_else(library: Library) -> None:
    library.add(concept_set(("ball", "ball-2")))
    library.add(concept_set(("ball",), ("coral",), title="another"))
    assert [hit.entry.id for hit in library.search(Query(key="BALL"))] == [3, 1]
    assert [hit.entry.id for hit in library.search(Query(key="ball", words="red"))] == [1]
    assert library.search(Query(key="bal")) == []


def test_there_is_told_what_to_choose_from(library: Library) -> None:
    assert library.overview() == Overview(0, {}, {})
    library.add(concept_set())
    library.add(concept_set(("cone",), ("red",), ("metal",), "other", "stable-diffusion-xl-v1-base"))
    told = library.overview()
    assert told.concepts == 3
    assert list(told.families.items()) == [("stable-diffusion-v1", 2), ("stable-diffusion-xl-v1-base", 1)]
    assert list(told.values["color"].items()) == [("red", 2), ("blue", 1)]


def test_sheets_and_thumbnails_are_there_where_a_set_had_pictures(library: Library) -> None:
    saved = concept_set()
    with_picture = library.add(saved)
    without = library.add(replace(concept_set(title="no picture"), picture=None, sheet=None, found=()))
    assert library.sheet(with_picture[1]) == saved.sheet
    assert library.sheet(without[0]) is None
    assert library.pictured(*with_picture, *without, 99) == set(with_picture)
    with pytest.raises(IceError, match="no concept 99"):
        library.sheet(99)


@pytest.mark.parametrize("kind", ["a name that leads out", "a link"])
def test_a_library_of_others_leads_to_no_file_outside_of_it(library: Library, kind: str) -> None:
    (number, *_) = library.add(concept_set())
    (inside,) = (library.folder / "sets").iterdir()
    outside = library.folder.parent / "outside.safetensors"
    inside.rename(outside)
    if kind == "a link":
        inside.symlink_to(outside)
    else:
        with sqlite3.connect(library.folder / schema.DATABASE) as database:
            database.execute("UPDATE sets SET digest = '../../outside'")
    for read in (library.load, library.sheet):
        with pytest.raises(IceError, match="none of its own"):
            read(number)
    (problem,) = library.check().problems
    assert "none of this library's own" in problem
    assert outside.is_file()


def test_the_same_property_is_found_with_its_neighbors_after_it(library: Library) -> None:
    ball, _ = library.add(concept_set())
    library.add(concept_set(("cone",), ("coral",), ("glass",), "b"))
    library.add(concept_set(("ring",), ("red",), ("metal",), "c"))
    assert found(library, same=("color", ball)) == ["ring", "cone"]
    assert found(library, same=("material", ball)) == ["ring"]
    assert found(library, same=("color", ball), has={"material": "glass"}) == ["cone"]
    with pytest.raises(IceError, match=r"no pattern was read of concept 1 .* color, material"):
        library.search(Query(same=("pattern", ball)))
    with pytest.raises(IceError, match="no concept 99"):
        library.search(Query(same=("color", 99)))


def test_pictures_find_what_looks_like_them_by_the_same_towers_only(library: Library) -> None:
    towers = ColorBlindToAllElse()
    red = embedded(towers, (1, 0, 0))
    library.add(concept_set())
    assert library.search_by_picture(red, towers.fingerprint, Query()) == []
    assert list(library.embed(towers)) == [(0, 1), (1, 1)]
    assert list(library.embed(towers)) == [(0, 0)]
    first, second = library.search_by_picture(red, towers.fingerprint, Query())
    assert (first.entry.key, second.entry.key) == ("ball", "cube")
    assert first.score > 0.8 > second.score
    assert library.search_by_picture(red, "another", Query()) == []
    only = library.search_by_picture(red, towers.fingerprint, Query(words="blue"))
    assert [hit.entry.key for hit in only] == ["cube"]
    page = library.search_by_picture(red, towers.fingerprint, Query(limit=5, offset=1))
    assert [hit.entry.key for hit in page] == ["cube"]
    with pytest.raises(IceError, match="does not fit these towers"):
        library.search_by_picture(red[:2], towers.fingerprint, Query())


def test_vectors_follow_what_others_add_and_remove(library: Library) -> None:
    towers = ColorBlindToAllElse()
    blue = embedded(towers, (0, 0, 1))
    first = library.add(concept_set())
    list(library.embed(towers))
    library.search_by_picture(blue, towers.fingerprint, Query())
    with Library(library.folder) as other:
        other.remove(first[1])
        other.add(concept_set(("cone",), title="b"))
        list(other.embed(towers))
        other.add(concept_set(("ring", "vase"), title="c"))
        list(other.embed(towers))
        fresh = other.search_by_picture(blue, towers.fingerprint, Query())
    kept = library.search_by_picture(blue, towers.fingerprint, Query())
    assert kept[0].entry.key == "vase"
    assert kept == fresh
    assert len(kept) == 4


def test_removing_keeps_the_rest_of_a_set(library: Library) -> None:
    saved = concept_set()
    ball, cube = library.add(saved)
    library.remove(ball)
    assert found(library) == ["cube"]
    assert found(library, words="ball") == []
    (rest,) = library.load(cube)
    assert same(rest, concept_set(("cube",), ("blue",), ("wood",))) is False
    assert [c.key for c in rest.learned.concepts] == [c.key for c in rest.found] == ["cube"]
    assert torch.equal(rest.found[0].mask, saved.found[1].mask)
    assert len(list((library.folder / "sets").iterdir())) == 1
    with pytest.raises(IceError, match="no concept 1;"):
        library.remove(cube, ball)
    assert library.count() == 1
    library.remove(cube)
    assert list((library.folder / "sets").iterdir()) == []
    assert library.add(saved) == (3, 4)


def test_a_set_that_another_process_rewrites_meanwhile_is_still_read(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    ball, cube = library.add(concept_set())
    path_of, late = library.path_of, iter([True])

    def rewritten_in_between(digest: str) -> Path:
        if next(late, False):
            with Library(library.folder) as other:
                other.remove(ball)
        return path_of(digest)

    monkeypatch.setattr(library, "path_of", rewritten_in_between)
    (saved,) = library.load(cube)
    assert [concept.key for concept in saved.learned.concepts] == ["cube"]


def test_check_removes_what_a_crash_left_and_tells_of_damage(library: Library) -> None:
    library.add(concept_set(), tags=["a"])
    library.add(concept_set(title="b"))
    assert library.check() == replace(library.check(), removed=(), problems=())
    sets = library.folder / "sets"
    (sets / ".0123.part").write_bytes(b"half")
    (sets / "incoming.safetensors").write_bytes(b"whole")
    checked = library.check()
    assert checked.removed == (".0123.part", "incoming.safetensors")
    assert checked.problems == ()
    assert (checked.concepts, checked.sets) == (4, 2)
    damaged = sorted(sets.iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (problem,) = library.check().problems
    assert "was changed or is damaged; import it again, or remove its concepts" in problem
    damaged.unlink()
    (problem,) = library.check().problems
    assert "cannot be read (No such file or directory)" in problem


def test_a_library_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    with Library(folder) as library:
        library.add(concept_set())
    # What version 1 had: the same without towers and vectors.
    old = sqlite3.connect(folder / schema.DATABASE, isolation_level=None)
    for table in ("vectors", "towers"):
        old.execute(f"DROP TABLE {table}")
    old.execute("PRAGMA user_version = 1")
    old.close()
    with Library(folder) as library:
        assert found(library, words="ball") == ["ball"]
        assert list(library.embed(ColorBlindToAllElse())) == [(0, 1), (1, 1)]
    (version,) = sqlite3.connect(folder / schema.DATABASE).execute("PRAGMA user_version").fetchone()
    assert version == schema.VERSION == 2


def test_databases_that_are_no_library_of_this_version_are_left_alone(tmp_path: Path) -> None:
    for name, statement, message in (
        ("other", "CREATE TABLE theirs (id)", "another program's database"),
        ("later", f"PRAGMA user_version = {schema.VERSION + 1}", "update comfyui-ice"),
    ):
        (tmp_path / name).mkdir()
        database = sqlite3.connect(tmp_path / name / schema.DATABASE)
        database.execute(statement)
        database.commit()
        database.close()
        with pytest.raises(IceError, match=message):
            Library(tmp_path / name)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / schema.DATABASE).write_text("no database, but a text of some length" * 100)
    with pytest.raises(IceError, match="cannot open the library"):
        Library(tmp_path / "text")
    (tmp_path / "file").touch()
    with pytest.raises(IceError, match="cannot open the library"):
        Library(tmp_path / "file")
    with pytest.raises(IceError, match="there is no library"):
        Library(tmp_path / "absent", create=False)


def test_bad_questions_and_tags_are_refused(library: Library) -> None:
    for asked, message in (
        ({"since": "yesterday"}, "is no day"),
        ({"limit": 0}, "a page of 0"),
        ({"words": "?!"}, "holds no word"),
    ):
        with pytest.raises(IceError, match=message):
            library.search(Query(**asked))  # type: ignore[arg-type]
    with pytest.raises(IceError, match="not one line"):
        library.add(concept_set(), tags=["a\nb"])
    with pytest.raises(IceError, match="no concept 5"):
        library.thumbnail(5)
    assert library.count() == 0
