"""What the benchmark of the library measures, and that killed writers leave a whole library."""

from __future__ import annotations

import json
from multiprocessing import get_all_start_methods
from pathlib import Path

import pytest

from benchmarks import library


@pytest.mark.skipif(
    "forkserver" not in get_all_start_methods(), reason="processes are forked, which this system cannot"
)
def test_kills_lose_nothing_that_was_confirmed(tmp_path: Path) -> None:
    out = tmp_path / "library.json"
    assert library.main(["--concepts", "480", "--queries", "3", "--kills", "6", "--out", str(out)]) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    killed = report["killed"]
    assert killed["confirmed"] > 0
    assert (killed["lost"], killed["half"], killed["problems"]) == (0, 0, [])
    assert report["480"]["concepts"] == 480
    assert report["480"]["by_picture"]["median_seconds"] > 0
