"""Axes as they are shipped and as a user writes them."""

from __future__ import annotations

from pathlib import Path

import make_axes
import pytest

from ice_core.attributes.axes import FOLDER, known_axes, parse_axes
from ice_core.attributes.values import Axis
from ice_core.errors import IceError
from ice_core.world.bundled import world_axes


def test_the_shipped_dictionaries_hold_plain_words() -> None:
    axes = known_axes()
    assert set(axes) == {"color", "material", "texture", "pattern", "style", "lighting", "shape", "mood"}
    assert len(axes["texture"].values) == 47
    for axis in axes.values():
        assert len(axis.values) >= 30
        assert all(value == " ".join(value.split()) for value in axis.values)


def test_every_dictionary_says_where_it_is_from() -> None:
    for path in FOLDER.glob("*.txt"):
        header, first, *_ = path.read_text(encoding="utf-8").splitlines()
        assert header.startswith("# ")
        assert not first.startswith("#")


def test_the_color_dictionary_is_what_its_script_writes() -> None:
    assert known_axes()["color"].values == tuple(make_axes.colors())


def test_colors_are_ones_a_person_would_say() -> None:
    colors = known_axes()["color"].values
    assert {"red", "dark blue", "turquoise", "dusty pink", "olive", "cornflower blue"} <= set(colors)
    assert not {"shit brown", "barbie pink", "darkblue", "blue blue", "blue/green"} & set(colors)


def test_a_name_takes_the_known_values_and_a_user_brings_others() -> None:
    color, finish, mood = parse_axes(["color", " finish = matte | glossy|satin", "mood2"])
    assert color == known_axes()["color"]
    assert finish == Axis("finish", ("matte", "glossy", "satin"))
    assert mood == Axis("mood2")
    assert mood.free
    assert parse_axes(["color=warm|cold"]) == (Axis("color", ("warm", "cold")),)


def test_opposite_words_between_which_a_degree_lies_are_no_values(tmp_path: Path) -> None:
    wanted = Axis("finish", ("matte", "satin"), (("fine", "very coarse"),))
    assert parse_axes(["finish=matte| fine<very  coarse |satin"]) == (wanted,)
    path = tmp_path / "finishes.txt"
    path.write_text("matte\nfine < very coarse\nsatin\n", encoding="utf-8")
    assert parse_axes([f"finish=@{path}"], files=True) == (wanted,)
    assert known_axes()["pattern"].degrees == (("narrow", "wide"),)
    assert world_axes()["pattern"].degrees == (("narrow", "wide"),)
    assert not {"narrow", "shiny"} & {*world_axes()["pattern"].values, *world_axes()["material"].values}


def test_values_can_be_in_a_file_where_files_may_be_read(tmp_path: Path) -> None:
    path = tmp_path / "finishes.txt"
    path.write_text("# ours, CC0\nmatte\n\n  high   gloss \nsatin\n", encoding="utf-8-sig")
    (finish,) = parse_axes([f"finish = @{path}"], files=True)
    assert finish == Axis("finish", ("matte", "high gloss", "satin"))
    with pytest.raises(IceError, match="two or more"):
        parse_axes([f"finish=@{path}"])


@pytest.mark.parametrize("content", [None, b"", b"# nothing\n", b"matte\n", b"\xff\xfe\x00"])
def test_a_file_without_values_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "finishes.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(IceError, match=r"finishes\.txt|two or more"):
        parse_axes([f"finish=@{path}"], files=True)


def test_the_world_has_its_own_words() -> None:
    color, shape = parse_axes(["color", "shape"], world_axes())
    assert "turquoise" in color.values
    assert len(color.values) < len(known_axes()["color"].values)
    assert shape.free


@pytest.mark.parametrize(
    ("texts", "wrong"),
    [
        (["finish="], "finish=matte"),
        (["finish=matte"], "two or more"),
        (["finish=matte|"], "empty value"),
        (["finish=matte|matte"], "twice"),
        (["finish=narrow<wide"], "finish=matte"),
        (["finish=matte|glossy|<wide"], "narrow<wide"),
        (["finish=matte|glossy|wide<wide"], "narrow<wide"),
        (["color", "color"], "twice"),
        (["two words"], "plain word"),
        ([""], "plain word"),
        (["object"], "another learned token"),
    ],
)
def test_axes_that_cannot_work_are_refused(texts: list[str], wrong: str) -> None:
    with pytest.raises(IceError, match=wrong):
        parse_axes(texts)
