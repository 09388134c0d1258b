"""Folders of pictures, as published and as people have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ice_core.errors import IceError
from ice_core.evaluation.pictures import source_pictures


def test_the_published_layout_and_plain_folders(tmp_path: Path) -> None:
    for name in ("02/img.jpg", "01/img.jpg", "01/mask1.png", "01/mask0.png", "01/notes.txt", "empty/x.png",
                 "vase.PNG", "vase.masks/b.png", "vase.masks/a.png", "readme.md"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = source_pictures(tmp_path)
    assert [(one.name, one.picture.name, [m.name for m in one.masks]) for one in found] == [
        ("01", "img.jpg", ["mask0.png", "mask1.png"]),
        ("02", "img.jpg", []),
        ("vase", "vase.PNG", ["a.png", "b.png"]),
    ]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IceError, match="no pictures in"):
        source_pictures(tmp_path)
    with pytest.raises(IceError, match="there is no folder"):
        source_pictures(tmp_path / "absent")
