"""What the benchmarks of naming and of growth write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import growth, retrieval


def test_both_solvers_reach_the_same_objective(tmp_path: Path) -> None:
    out = tmp_path / "retrieval.json"
    assert retrieval.main(["--words", "60", "200", "--pictures", "2", "--out", str(out)]) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    for words in ("60", "200"):
        assert abs(report[words]["relative_objective"]) < 1e-4
        assert report[words]["seconds"] > 0
        assert report[words]["lasso_seconds"] > 0


def test_growth_is_drawn_over_the_pixels() -> None:
    row = {work: {"seconds": 1.0, "peak_bytes": 2**30} for work in growth.WORKS}
    drawn = growth.plot({"256x256": row, "768x512": row | {"pass": {"seconds": 2.0, "peak_bytes": None}}})
    assert drawn.width > drawn.height > 0


@pytest.mark.parametrize("size", ["512", "500x512", "axb"])
def test_a_size_that_cannot_be_is_refused(
    size: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        growth.main(["--sizes", size, "--out", str(tmp_path / "growth.json")])
    assert repr(size) in capsys.readouterr().err
