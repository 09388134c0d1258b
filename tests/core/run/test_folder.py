"""The folder of a run: what a crash leaves in it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from extractions import SETTINGS
from fakes import FakeBackbone
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from training_runs import SHORT, scene

from ice_core.errors import IceError
from ice_core.files.images import save_png
from ice_core.run.folder import History, RunFolder, RunStart
from ice_core.run.pipeline import resume
from ice_core.run.training import Job, Training
from ice_core.training import Snapshot, train


def test_a_crash_while_saving_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *_ = (e.state for e in train(FakeBackbone(), scene(), SHORT) if isinstance(e, Snapshot))
    folder = RunFolder(tmp_path)
    folder.save_progress(first, History())
    before = (tmp_path / "training.safetensors").read_bytes()
    replace = os.replace

    def crash(source: str, target: str) -> None:
        if Path(target).suffix == ".safetensors":
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(IceError):
        folder.save_progress(second, History())
    assert second.to_bytes() != before
    assert (tmp_path / "training.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.json", "training.safetensors"]


def start(**other: object) -> RunStart:
    return replace(RunStart("a picture", "2026-01-01", "0.1.0", "fake", "f" * 64, asdict(SETTINGS)), **other)


def begun(path: Path) -> RunFolder:
    """A run that found its objects and learned a few steps."""
    folder = RunFolder(path)
    folder.save_start(start(), scene())
    save_png(scene().image, folder.picture)
    first = next(e.state for e in train(FakeBackbone(), scene(), SHORT) if isinstance(e, Snapshot))
    folder.save_progress(first, History(({"total": 1.0},), {"training": 2.0}))
    return folder


def test_what_a_run_started_with_comes_back(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    plain, found = folder.load_start()
    assert plain.title == "a picture"
    assert torch.equal(found.image, scene().image)
    assert [c.key for c in found.concepts] == [c.key for c in scene().concepts]
    assert folder.load_progress()[2].seconds == {"training": 2.0}


@pytest.mark.parametrize("name", ["embeddings", "masks", "rows", "previews"])
def test_a_folder_that_is_a_link_is_not_written_through(tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = begun(tmp_path / "run")
    (folder.path / name).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    job = Job(FakeBackbone(), scene(), SETTINGS, "a picture", "")
    for act in (folder.load_start, folder.check_free, lambda: Training(job, folder)):
        with pytest.raises(IceError, match=f"{name} is a link"):
            act()
    with pytest.raises(IceError, match=f"{name} is a link"):
        resume(FakeBackbone(), folder.path)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    "changed",
    [
        [], 3, None, {"title": 3}, {"notes": "text"}, {"notes": [1]}, {"settings": []}, {"source": {"a": 1}},
        {"settings": {"training": 3}}, {"settings": {"training": {"steps": "many"}}}, {"rounds": [3]},
        {"settings": {"training": {"axes": 3}}}, {"settings": {"training": {"seed": 1.5}}}, {"unknown": 1},
        {"settings": {"sampling": {"steps": None}}}, {"readings": [1]}, {"readings": {"ball-0": 3}},
        {"readings": {"a": {"color": {"axis": 1}}}},
    ],
)  # fmt: skip
def test_a_start_with_wrong_types_is_refused(tmp_path: Path, changed: object) -> None:
    folder = begun(tmp_path)
    plain = asdict(start())
    (tmp_path / "run.json").write_text(json.dumps(plain | changed if isinstance(changed, dict) else changed))
    with pytest.raises(IceError, match=r"resumed|another version"):
        resume(FakeBackbone(), folder.path)


@pytest.mark.parametrize(
    "changed",
    [
        {"background": torch.zeros(3, 4)}, {"background": torch.zeros(())}, {"image": torch.zeros(64, 64)},
        {"mask/ball-0": torch.zeros(64, 32)}, {"mask/cube-1": torch.zeros(1, 64, 64)},
        {"image": torch.zeros(4, 64, 64)}, {"image": torch.full((3, 64, 64), torch.nan)},
        {"image": torch.zeros(3, 64, 64, dtype=torch.long)},
    ],
)  # fmt: skip
def test_masks_and_pictures_of_other_shapes_are_refused(
    tmp_path: Path, changed: dict[str, torch.Tensor]
) -> None:
    folder = begun(tmp_path)
    path = tmp_path / "found.safetensors"
    with safe_open(path, "pt") as file:
        header = file.metadata()
    save_file(load_file(path) | changed, path, header)
    with pytest.raises(IceError, match="cannot be resumed"):
        folder.load_start()


@pytest.mark.parametrize(
    "found", ["[]", "[3]", "{", '[{"key": 3}]', '[{"key": "ball-0", "label": 1, "score": 1}]']
)
def test_objects_with_wrong_types_are_refused(tmp_path: Path, found: str) -> None:
    folder = begun(tmp_path)
    path = tmp_path / "found.safetensors"
    save_file(load_file(path), path, {"ice.concepts": found})
    with pytest.raises(IceError, match="cannot be resumed"):
        folder.load_start()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", '{"losses": 3}', '{"losses": [3]}', '{"losses": [{"total": "much"}]}', '{"seconds": []}',
     '{"losses": [], "seconds": {"a": "b"}}', "[" * 100_000],
)  # fmt: skip
def test_a_history_with_wrong_types_is_refused(tmp_path: Path, text: str) -> None:
    folder = begun(tmp_path)
    (tmp_path / "history.json").write_text(text)
    with pytest.raises(IceError, match="history"):
        folder.load_progress()


@pytest.mark.parametrize(
    "changed",
    [
        {"step": "one"}, {"step": 1.5}, {"step": None}, {"concepts": 3}, {"concepts": [["a"]]},
        {"concepts": [[1, 2]]}, {"config": []}, {"config": {"steps": "8"}}, {"readings": []},
        {"readings": {"ball-0": 1}}, {"settled": 3}, {"base_name": 3}, {"unknown": 3},
    ],
)  # fmt: skip
def test_a_state_with_wrong_types_is_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    folder = begun(tmp_path)
    path = tmp_path / "training.safetensors"
    with safe_open(path, "pt") as file:
        header = file.metadata()
    header["state"] = json.dumps(json.loads(header["state"]) | changed)
    save_file(load_file(path), path, header)
    with pytest.raises(IceError, match="training state"):
        folder.load_progress()
