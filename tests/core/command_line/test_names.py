"""Names that a careless user gives: pictures, labels and prompts of any characters and any length."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
from extractions import MARKED, scene
from tiny_families import tiny_family

from ice_core import api
from ice_core.command_line.cli import main
from ice_core.errors import IceError
from ice_core.files.images import save_png

QUICK = [*MARKED[:-1], "2", "--axes", "color", "--out", "out"]


def test_a_line_break_in_a_label_or_in_the_name_of_the_picture_is_a_space(files: Path) -> None:
    (files / "squares.png").rename(files / "two\nsquares.png")
    assert main([QUICK[0], "two\nsquares.png", *QUICK[2:3], "red\nball,cube", *QUICK[4:]]) == 0
    report = json.loads((files / "out" / "report.json").read_text())
    assert report["title"] == "two squares.png"
    assert [(c["key"], c["label"]) for c in report["concepts"]] == [
        ("red-ball", "red ball"),
        ("cube", "cube"),
    ]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("b" * 151, "151 bytes long; use one of at most 150"),
        ("{ball}", "leave out spaces, commas and any of"),
        ("con", "a device's on Windows"),
        ("ball\udcff", "not UTF-8 text"),
        ("\u7403" * 51, "153 bytes long"),
    ],
)
def test_a_label_that_no_file_can_have_is_refused_before_any_work(
    files: Path, capsys: pytest.CaptureFixture[str], label: str, message: str
) -> None:
    before = sorted(files.rglob("*"))
    assert main([*QUICK[:3], f"{label},cube", *QUICK[4:]]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert "finding objects" not in err
    assert sorted(files.rglob("*")) == before


def test_a_picture_whose_name_is_not_utf_8_is_taken(
    files: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    picture = "caf\udce9.png"
    (files / "squares.png").rename(files / picture)
    assert main([QUICK[0], picture, *QUICK[2:]]) == 0
    report = json.loads((files / "out" / "report.json").read_text())
    assert report["title"] == "caf\ufffd.png"
    assert report["source"]["picture"] == picture
    assert main(["extract", "--resume", "out"]) == 0
    drawn = ["--concepts", "out", "--out", "caf\udce9-drawn.png"]
    capfdbinary.readouterr()
    assert main(["compose", "a {ball.object}", *drawn]) == 0
    assert capfdbinary.readouterr().out == b"caf\xe9-drawn.png\n"
    assert main(["compose", "a {ball.object}\udce9", *drawn]) == 2
    assert b"is not UTF-8 text" in capfdbinary.readouterr().err


def test_a_folder_that_could_not_be_read_again_is_refused_before_any_work(
    files: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert main([*QUICK[:-1], "r\udce9sult"]) == 2
    assert b"not UTF-8, which safetensors cannot open" in capfdbinary.readouterr().err
    assert not (files / "r\udce9sult").exists()


def test_axes_that_would_share_a_file_on_a_disk_that_ignores_case_are_refused(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*QUICK[:-3], "Color,color", *QUICK[-2:]]) == 2
    assert "ball.Color and ball.color would share a file" in capsys.readouterr().err
    assert not (files / "out").exists()


def test_objects_are_named_by_the_clip_of_the_checkpoint_s_family_and_the_download_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def unreachable(name: str, *_: object) -> None:
        opened.append(name)
        raise IceError("no network")

    monkeypatch.setattr(api, "open_towers", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    save_png(scene()[0], tmp_path / "squares.png")
    command = ["extract", str(tmp_path / "squares.png"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    for family, size in (("sd1", "1.7 GB"), ("sd2", "3.9 GB"), ("sdxl", "10.2 GB")):
        file = tiny_family(family).write(tmp_path / f"{family}.safetensors")
        assert main([*command, "--checkpoint", str(file)]) == 2
        assert f"{opened[-1]} names the objects and is downloaded first ({size})" in capsys.readouterr().err
    assert [name.partition("/")[0] for name in opened] == ["ViT-L-14-quickgelu", "ViT-H-14", "ViT-bigG-14"]
