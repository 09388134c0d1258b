"""Some damaged files for each reader; `benchmarks/hostile_files.py` gives them thousands."""

from __future__ import annotations

import json
import shutil
import warnings
from collections import Counter
from pathlib import Path

import hostile_files
import pytest
from hostile.samples import Kind, kinds

NAMES = (
    "embedding", "embedding of others", "folder of embeddings", "concept set", "LoRA", "run folder",
    "picture", "mask", *hostile_files.LARGE,
)  # fmt: skip


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    return kinds(tmp_path_factory.mktemp("samples"))


def outcome(kind: Kind, folder: Path, seed: int | None) -> str:
    """Of a file spoiled by a seed, or of a whole one."""
    folder.mkdir()
    if seed is None:
        for name, data in kind.files.items():
            (folder / name).write_bytes(data)
        path = folder / next(iter(kind.files))
    else:
        path = hostile_files.placed(kind, folder, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = hostile_files.outcome(kind, folder, path)
    shutil.rmtree(folder)
    return said


@pytest.mark.parametrize("name", NAMES)
def test_a_spoiled_file_is_read_or_refused(every: dict[str, Kind], tmp_path: Path, name: str) -> None:
    if name not in every:
        pytest.skip("the bundled weights are not there")
    assert name in hostile_files.LARGE or outcome(every[name], tmp_path / "files", None) == "read"
    seeds = range(3 if name in hostile_files.LARGE else 30)
    said = Counter(outcome(every[name], tmp_path / "files", seed) for seed in seeds)
    assert set(said) <= {"read", "refused"}, said
    assert said["refused"]


def test_what_goes_wrong_is_told(tmp_path: Path) -> None:
    def broken(folder: Path, path: Path) -> None:
        raise KeyError("colour")

    assert (
        outcome(Kind({"a.png": b"x" * 50}, broken), tmp_path / "files", 1) == "traceback: KeyError: 'colour'"
    )


def test_the_command_counts_each_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def few(scratch: Path) -> dict[str, Kind]:
        return {"picture": kinds(scratch)["picture"]}

    class Here:
        """Reads in this process."""

        def read(self, name: str, folder: Path, path: Path) -> tuple[str, float, int]:
            said = ("read", "refused", "hang")[len(list(folder.iterdir())) % 3]
            return said, 1.5, 2**31 if said == "refused" else 0

        def close(self) -> None: ...

    monkeypatch.setattr(hostile_files, "kinds", few)
    monkeypatch.setattr(hostile_files, "Reader", Here)
    assert hostile_files.main(["--files", "3", "--out", str(tmp_path / "a.json")]) in (0, 1)
    report = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert report["picture"]["files"] == 3
    assert report["all"]["files"] == 3
    assert report["picture"]["slowest_s"] == 1.5
    assert report["all"]["read"] + report["all"]["refused"] + report["all"]["wrong"] == 3
