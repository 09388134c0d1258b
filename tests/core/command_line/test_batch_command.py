"""`ice batch` with the bundled model, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ice_core.command_line import batch_commands
from ice_core.command_line.cli import build_parser, main
from ice_core.errors import IceError
from ice_core.files.images import save_png
from ice_core.library.entries import Query
from ice_core.library.ray_engine import RayEngine
from ice_core.library.store import Library
from ice_core.world.bundled import MODEL_FILE
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene


@pytest.mark.skipif(not MODEL_FILE.is_file(), reason="the bundled weights are not there")
def test_a_folder_goes_into_a_library_and_is_not_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scene = sample_scene(3, count=2)
    save_png(render([scene]).images[0], tmp_path / "pictures" / "scene.png")
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    command = ["batch", "pictures", "--library", "mine", "--method", "words", "--tag", "rendered"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "2 pictures, 2 concepts, 1 left out; 0 were done before" in out
    assert "note: left out: broken.png: cannot read the picture broken.png" in err
    assert "pictures 2/2 (scene.png)" in err
    with Library("mine") as library:
        entries = [hit.entry for hit in library.search(Query(tags=("rendered",)))]
        assert {entry.label for entry in entries} == {item.kind for item in scene.objects}
        assert all(entry.properties.keys() == {"color", "material", "pattern"} for entry in entries)
        learned = library.load(*(entry.id for entry in entries))[0].learned
        assert [len(concept.intrinsics) for concept in learned.concepts] == [3, 3]
    page = Path("mine/summary.html").read_text("utf-8")
    assert len(re.findall("<img ", page)) == 2
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "2 pictures, 2 concepts, 1 left out; 1 were done before" in out


def test_the_engine_is_what_was_asked_for() -> None:
    asked = ["batch", "x", "--engine", "ray", "--address", "a:1", "--workers", "2", "--gpus", "0.5"]
    engine = batch_commands._engine(build_parser().parse_args(asked))
    assert engine == RayEngine("a:1", 2, 1, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "there is no folder absent"),
        (["."], "no pictures in ."),
        ([".", "--workers", "2"], "--workers is for --engine ray"),
        ([".", "--threads", "-1"], "--threads is -1"),
        ([".", "--engine", "ray", "--gpus", "-1"], "--gpus is -1"),
        ([".", "--checkpoint", "absent.safetensors"], "there is no file absent.safetensors"),
        ([".", "--labels", "ball", "--clip", "x"], "leave them out"),
        ([".", "--axes", "object"], "another learned token"),
    ],
)
def test_bad_input_is_one_clear_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["batch", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_ray_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(IceError, match=r"comfyui-ice\[ray\]"):
        list(RayEngine().outcomes([], lambda: lambda name, picture: b""))
