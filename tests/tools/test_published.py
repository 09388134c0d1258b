"""What the registry gets: nothing but the nodes, and what it asks to be said of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tools.published import PACK, copy_to, published_files, zipped_size

MOST_BYTES = 30e6


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML by itself")
    with (PACK / "pyproject.toml").open("rb") as file:
        loaded: dict[str, Any] = tomllib.load(file)
    return loaded


def files() -> list[Path]:
    if not (PACK / ".git").exists():
        pytest.skip("this is no checkout: git says what is published")
    return published_files()


def test_published_is_what_the_nodes_need_and_no_more() -> None:
    folders = {file.parts[0] for file in files() if len(file.parts) > 1}
    assert folders <= {"ice_core", "nodes", "web", "workflows", "subgraphs", "locales"}
    assert {"__init__.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE"} <= set(
        map(str, files())
    )
    assert not [file for file in files() if "judge" in file.name]


def test_what_is_published_can_be_had_as_a_folder(tmp_path: Path) -> None:
    chosen = [file for file in files() if file.suffix in (".toml", ".json")]
    copy_to(tmp_path / "new", chosen)
    copied = [path.relative_to(tmp_path / "new") for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert sorted(copied) == chosen
    assert (tmp_path / "new" / "pyproject.toml").read_bytes() == (PACK / "pyproject.toml").read_bytes()
    with pytest.raises(FileExistsError):
        copy_to(tmp_path / "new", chosen)


def test_published_is_small() -> None:
    assert zipped_size(files()) < MOST_BYTES


def test_published_code_runs_no_text_and_installs_nothing() -> None:
    forbidden = re.compile(r"(?<![.\w])(eval|exec)\(|os\.system\(|subprocess.*pip|pip\.main")
    found = [
        (str(file), line)
        for file in files()
        if file.suffix == ".py"
        for line in (PACK / file).read_text(encoding="utf-8").splitlines()
        if forbidden.search(line)
    ]
    assert found == []


def test_the_registry_s_metadata_is_whole(project: dict[str, Any]) -> None:
    assert project["project"]["urls"]["Repository"].startswith("https://")
    assert any(line.startswith("Operating System ::") for line in project["project"]["classifiers"])
    comfy = project["tool"]["comfy"]
    assert comfy["PublisherId"]
    assert comfy["DisplayName"]
    assert comfy["requires-comfyui"] == ">=0.3.64"


def test_icon_and_banner_have_the_registry_s_shapes(project: dict[str, Any]) -> None:
    names = [project["tool"]["comfy"][key].rpartition("/")[2] for key in ("Icon", "Banner")]
    with Image.open(PACK / "docs" / names[0]) as icon, Image.open(PACK / "docs" / names[1]) as banner:
        assert max(icon.size) <= 400
        assert icon.width == icon.height
        assert banner.width * 9 == banner.height * 21


def test_the_default_test_run_brings_what_tests_the_page(project: dict[str, Any]) -> None:
    assert any(one.startswith("selenium") for one in project["dependency-groups"]["dev"])
