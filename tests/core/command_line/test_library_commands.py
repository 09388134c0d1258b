"""`ice library`, and extractions that file their results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from concept_sets import concept_set
from extractions import MARKED
from judges import ColorBlindToAllElse

from ice_core.command_line.cli import main
from ice_core.files.concept_set import load_concept_set, save_concept_set
from ice_core.library.place import VARIABLE
from ice_core.library.store import Library
from ice_core.localization.retrieval import towers


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a library of three concepts: 1 ball, 2 cube, 3 cone."""
    monkeypatch.chdir(tmp_path)
    with Library("ice-library") as library:
        library.add(concept_set(), "squares.png", ["garden"])
        library.add(concept_set(("cone",), ("coral",), ("metal",), "b[old]", "stable-diffusion-xl-v1-base"))
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command says in JSON."""
    capsys.readouterr()
    assert main(["library", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def ids(answer: Any) -> list[int]:
    return [one["id"] for one in answer["concepts"]]


def test_an_extraction_is_filed_and_found(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filed = ["--axes", "color", "--out", "out", "--library", "mine", "--set", "ball.color=red"]
    assert main([*MARKED, *filed]) == 0
    assert "library:       mine, concepts 1, 2" in capsys.readouterr().out
    (red,) = told(capsys, "search", "red", "--library", "mine")["concepts"]
    assert (red["key"], red["origin"], red["properties"]["color"]) == ("ball", "squares.png", "red")
    assert ids(told(capsys, "add", "out", "--library", "mine", "--tag", "again")) == [1, 2]
    assert ids(told(capsys, "add", "out", "--library", "other", "--tag", "new")) == [1, 2]
    assert ids(told(capsys, "list", "--library", "other", "--tag", "new")) == [2, 1]


def test_the_environment_may_name_the_library(
    kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (kept / "ice-library").rename(kept / "another")
    assert main(["library", "list"]) == 2
    monkeypatch.setenv(VARIABLE, str(kept / "another"))
    assert ids(told(capsys, "list")) == [3, 2, 1]
    assert told(capsys, "list")["library"] == str(kept / "another")


def test_lists_and_searches_narrow_and_rank(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ids(told(capsys, "list")) == [3, 2, 1]
    assert ids(told(capsys, "list", "--base", "xl")) == [3]
    assert ids(told(capsys, "list", "--tag", "garden", "--limit", "1", "--offset", "1")) == [1]
    assert ids(told(capsys, "search", "bal", "red")) == [1]
    assert ids(told(capsys, "search", "--same", "color", "--like", "1")) == [3]
    assert ids(told(capsys, "search", "--has", "material=wood", "--since", "2020-01-01")) == [2]
    assert main(["library", "search", "metal"]) == 0
    table = capsys.readouterr().out
    assert "coral, metal" in table
    assert "2 concepts of 2" in table


def test_a_picture_finds_what_looks_like_it(
    kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(towers, "open_towers", lambda name: ColorBlindToAllElse())
    Path("blue.jpg").write_bytes(thumbnail(2))
    found = told(capsys, "search", "--picture", "blue.jpg", "--clip", "colors")
    assert ids(found)[0] == 2
    scores = [one["score"] for one in found["concepts"]]
    assert scores == sorted(scores, reverse=True)


def thumbnail(number: int) -> bytes:
    with Library("ice-library") as library:
        picture = library.thumbnail(number)
    assert picture is not None
    return picture


def test_show_tells_readings_and_prompts(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["library", "show", "3", "--thumbnail", "cone.jpg"]) == 0
    out = capsys.readouterr().out
    assert "coral 0.90, other 0.10" in out
    assert "a photo of a {cone}" in out
    assert "b[old]" in out
    assert Path("cone.jpg").read_bytes() == thumbnail(3)
    assert told(capsys, "show", "1")["tags"] == ["garden"]


def test_exported_sets_are_imported_elsewhere(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (first,) = told(capsys, "export", "1", "--out", "sent")["files"]
    assert [c.key for c in load_concept_set(first).learned.concepts] == ["ball"]
    assert main(["library", "export", "1", "2", "3", "--out", "sent"]) == 0
    assert "ball-cube.concepts.safetensors" in capsys.readouterr().out
    (Path("sent") / "inner").mkdir()
    save_concept_set(concept_set(title="inner"), Path("sent/inner/deep.safetensors"))
    taken = told(capsys, "import", "sent", "--library", "friend")
    assert len(taken["added"]) == 1 + 2 + 1 + 2
    assert taken["refused"] == {}
    assert told(capsys, "list", "--library", "friend")["concepts"][0]["properties"]["color"]


def test_damaged_files_are_left_out_of_an_import(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = save_concept_set(concept_set(), Path("sent/good.safetensors"))
    Path("sent/cut.safetensors").write_bytes(good.read_bytes()[:-40])
    assert (
        main(["library", "import", "sent/good.safetensors", "sent/cut.safetensors", "--library", "new"]) == 0
    )
    out, err = capsys.readouterr()
    assert "2 concepts of 1 sets are in new" in out
    assert "note: left out: cannot read sent/cut.safetensors" in err


def test_remove_and_check(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "remove", "1", "3") == {"removed": [1, 3], "left": 1}
    (kept / "ice-library/sets/.half.part").touch()
    assert told(capsys, "check") == {"concepts": 1, "sets": 1, "removed": [".half.part"], "problems": []}
    (file,) = (kept / "ice-library/sets").iterdir()
    file.write_bytes(b"")
    assert main(["library", "check"]) == 2
    out, err = capsys.readouterr()
    assert "was changed or is damaged" in out
    assert "has 1 problems" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--library", "absent"], "there is no library in absent"),
        (["show", "9"], "there is no concept 9"),
        (["search", "--same", "color"], "belong together"),
        (["search", "--clip", "x"], "--clip compares pictures"),
        (["search", "--picture", "absent.png"], "there is no picture absent.png"),
        (["search", "--has", "red"], "--has material=metal"),
        (["list", "--until", "soon"], "is no day"),
        (["add", "absent"], "there is no file or folder absent"),
        (["add", "."], "there is no file concepts.safetensors"),
        (["import", "."], "no concept sets in ."),
        (["remove", "1", "9"], "there is no concept 9"),
    ],
)
def test_bad_input_is_one_clear_line(
    kept: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    for path in (kept / "ice-library" / "sets").iterdir():
        path.rename(path.with_suffix(".gone") if arguments == ["import", "."] else path)
    assert main(["library", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_listing_loads_no_torch(kept: Path) -> None:
    script = (
        "import sys, ice_core.command_line.cli as cli\n"
        "assert cli.main(['library', 'search', 'ball', '--json']) == 0\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
