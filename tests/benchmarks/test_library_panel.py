"""What the benchmark of the library's panel measures, on a small library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.comfy_host import find_hosts


@pytest.mark.host
def test_every_figure_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import library_panel
    from tools.comfy_page import missing

    if (problem := missing()) is not None:
        pytest.skip(problem)
    if not (hosts := find_hosts()) or hosts[0].problem() is not None:
        pytest.skip("there is no ComfyUI: set COMFYUI_PATH to its folder")
    monkeypatch.setattr(library_panel, "find_hosts", lambda: hosts[:1])
    out = tmp_path / "panel.json"
    small = ["--concepts", "320", "--browsers", "1", "--times", "1"]
    assert library_panel.main([*small, "--out", str(out)]) == 0
    figures = json.loads(out.read_text(encoding="utf-8"))[hosts[0].version]
    assert figures["concepts"] == 320
    for which in ("first", "again"):
        assert figures[which]["pictures"]["median_ms"] >= figures[which]["list"]["median_ms"] > 0
    assert figures["search"]["median_ms"] > 0
