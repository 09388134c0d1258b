"""Fixtures of more than one room."""

from __future__ import annotations

from pathlib import Path

import pytest
from extractions import Names, scene
from fakes import FakeBackbone

from ice_core.command_line import commands, models
from ice_core.files.images import save_png
from ice_core.library.place import VARIABLE


@pytest.fixture(autouse=True)
def no_library_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that the environment names is nobody's to test with."""
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a picture and masks, and fakes in place of the models."""
    image, masks = scene()
    save_png(image, tmp_path / "squares.png")
    for name, mask in zip(("one", "two"), masks, strict=True):
        save_png(mask, tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models, "open_backbone", lambda *_: FakeBackbone())
    monkeypatch.setattr(commands, "_retriever", lambda *_: (Names(), ["named by a fake"]))
    return tmp_path
