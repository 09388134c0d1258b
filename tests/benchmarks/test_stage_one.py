"""What the benchmarks of naming and of growth write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import attention, growth, retrieval
from ice_core.world.bundled import MODEL_FILE


def test_both_solvers_reach_the_same_objective(tmp_path: Path) -> None:
    out = tmp_path / "retrieval.json"
    assert retrieval.main(["--words", "60", "200", "--pictures", "2", "--out", str(out)]) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    for words in ("60", "200"):
        assert abs(report[words]["relative_objective"]) < 1e-4
        assert report[words]["seconds"] > 0
        assert report[words]["lasso_seconds"] > 0


def test_growth_is_drawn_over_pixels_words_and_vocabulary() -> None:
    row = {work: {"seconds": 1.0, "peak_bytes": 2**30} for work in growth.WORKS}
    some = {"pass": {"seconds": 2.0, "peak_bytes": None}}
    counts = {"1": {"seconds": 1.0, "peak_bytes": 1}, "20": {"seconds": 2.0, "peak_bytes": 2}}
    drawn = growth.plot({"picture": {"256x256": row, "768x512": some}, "words": counts, "vocabulary": counts})
    assert drawn.width > drawn.height > 0


def test_a_vocabulary_is_measured_alone(tmp_path: Path) -> None:
    out = tmp_path / "growth.json"
    arguments = ["--sizes", "--words", "--vocabulary", "50", "--out", str(out)]
    assert growth.main([*arguments, "--plot", str(tmp_path / "growth.png")]) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["picture"] == report["words"] == {}
    assert report["vocabulary"]["50"]["seconds"] > 0
    assert (tmp_path / "growth.png").exists()


@pytest.mark.parametrize("words", ["0", "21"])
def test_a_number_of_words_that_cannot_be_is_refused(
    words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        growth.main(["--words", words, "--out", str(tmp_path / "growth.json")])
    assert f"--words has {words}" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["512", "500x512", "axb"])
def test_a_size_that_cannot_be_is_refused(
    size: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        growth.main(["--sizes", size, "--out", str(tmp_path / "growth.json")])
    assert repr(size) in capsys.readouterr().err


@pytest.mark.skipif(not MODEL_FILE.is_file(), reason="the bundled weights are not there")
def test_ways_of_reading_attention_are_compared_on_other_scenes_than_they_are_chosen_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "CUTS", (0.31,))
    monkeypatch.setattr(attention, "SPREAD", (0, 2))
    out = tmp_path / "attention.json"
    options = ["--scenes", "1", "--choose-on", "5", "--markdown", "--out", str(out)]
    assert attention.main(options) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    assert set(report["objects"]) == {"clusterability", "mean", "chains", "walks"}
    assert report["objects"]["clusterability"]["mean_iou"] > 0.5
    assert report["words"]["spread 0 times"]["objects"] >= 1
    assert "| objects: chains | " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        attention.main([*options, "--seed", "5"])
