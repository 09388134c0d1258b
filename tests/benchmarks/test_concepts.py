"""What `benchmarks/concepts.py` keeps of an earlier run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from concepts import kept

SETTINGS = {"seed": 13, "scenes": 20, "split": "seen", "whole_pictures": 2}


def test_figures_of_the_same_scenes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "concepts.json"
    assert kept(path, SETTINGS) == {}
    figures = {"paper": {"shade_error": 9.0}, "ceiling": {"shade_error": 6.0}}
    path.write_text(json.dumps(figures | {"settings": SETTINGS, "environment": {}}))
    assert kept(path, SETTINGS | {"methods": ["words"]}) == figures


def test_figures_of_other_scenes_are_not_mixed_with_them(tmp_path: Path) -> None:
    path = tmp_path / "concepts.json"
    path.write_text(json.dumps({"settings": SETTINGS | {"scenes": 5}, "environment": {}}))
    with pytest.raises(ValueError, match="are of scenes 5, not 20"):
        kept(path, SETTINGS)
