"""The benchmark of the field, on a few rendered scenes of the bundled model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import uce
from ice_core.evaluation.concept_extraction import DrawnConcept
from ice_core.files.images import save_png
from ice_core.world.bundled import MODEL_FILE

pytestmark = pytest.mark.skipif(not MODEL_FILE.is_file(), reason="the bundled weights are not there")


def test_words_beat_pictures_that_ignore_the_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for n, source in enumerate(uce.sources(None, 3, 0)):
        folder = tmp_path / "data" / f"{n:02}"
        save_png(source.image, folder / "img.png")
        for i, mask in enumerate(source.masks):
            save_png(mask, folder / f"mask{i}.png")
    quick = ["--methods", "words", "nothing", "--pictures", "2", "--sampling-steps", "10", "--device", "cpu"]
    quick += ["--data", str(tmp_path / "data"), "--keep", str(tmp_path / "kept")]
    out = tmp_path / "uce.json"
    assert uce.main([*quick, "--workers", "2", "--out", str(out)]) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    # A second run measures only what is missing, here by itself, and comes to the same figures.
    kept = sorted((tmp_path / "kept").iterdir())
    assert len(kept) == 3
    kept[0].unlink()
    times = [path.stat().st_mtime_ns for path in kept[1:]]
    assert uce.main([*quick, "--out", str(out)]) == 0
    assert sorted((tmp_path / "kept").iterdir()) == kept
    assert [path.stat().st_mtime_ns for path in kept[1:]] == times
    again = json.loads(out.read_text(encoding="utf-8"))
    for features in ("bundled", "judge"):
        for method, figures in report[features].items():
            for name, value in figures.items():
                assert again[features][method][name] == pytest.approx(value, abs=1e-3), (method, name)
    assert report["settings"]["concepts"] >= 4
    assert report["settings"]["encoders"] == {"bundled": "bundled", "judge": "judge"}
    for features in ("bundled", "judge"):
        words, nothing = report[features]["words"], report[features]["nothing"]
        assert words["mean_iou"] > 0.8
        assert words["acc_1"] > nothing["acc_1"]
        assert words["sim_c"] > nothing["sim_c"]
    table = capsys.readouterr().out
    assert "| ICE (arXiv 2503.19902) | 0.738 | 0.822 | 0.325 | 0.518 |" in table
    assert "ours are of the bundled model on data" in table


def test_pictures_without_masks_have_no_mask_columns() -> None:
    drawn = DrawnConcept(torch.ones(4), torch.ones(2, 4))
    figures = uce.summary([uce.DrawnPicture(torch.ones(4), torch.ones(2, 4), (drawn,) * 4)], [])
    assert figures["sim_i"] == 1
    assert "mean_iou" not in figures
    assert "| words | 1.000 |" in uce.markdown({"clip": {"words": figures}}, "a model", "pictures")


def test_too_few_concepts_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "uce.json"
    assert uce.main(["--data", str(tmp_path), "--out", str(out)]) == 2
    assert "no pictures in" in capsys.readouterr().err
    assert not out.exists()
