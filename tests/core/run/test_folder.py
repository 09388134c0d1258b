"""The folder of a run: what a crash leaves in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fakes import FakeBackbone
from training_runs import SHORT, scene

from ice_core.errors import IceError
from ice_core.run.folder import History, RunFolder
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
