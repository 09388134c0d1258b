"""Figures that took hours are seen and kept, whatever else is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import results


def test_figures_are_kept_where_a_package_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "PACKAGES", ("torch", "no-such-package-anywhere"))
    results.write_results(tmp_path / "f.json", {"right": 0.5}, {"seed": 3})
    kept = json.loads((tmp_path / "f.json").read_text())
    assert kept["right"] == 0.5
    assert kept["settings"] == {"seed": 3}
    assert kept["environment"]["no-such-package-anywhere"] is None
    assert kept["environment"]["torch"]


def test_figures_are_printed_where_they_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((FileExistsError, NotADirectoryError)):
        results.write_results(tmp_path / "file" / "f.json", {"right": 0.5}, {})
    assert '"right": 0.5' in capsys.readouterr().out
