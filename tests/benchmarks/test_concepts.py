"""What `benchmarks/concepts.py` keeps of an earlier run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from concepts import kept

SETTINGS = {"seed": 13, "scenes": 20, "steps": None, "split": "seen", "whole_pictures": 2}


def test_figures_of_the_same_scenes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "concepts.json"
    assert kept(path, SETTINGS) == {}
    figures = {"paper": {"shade_error": 9.0}, "ceiling": {"shade_error": 6.0}}
    path.write_text(json.dumps(figures | {"settings": SETTINGS, "environment": {}}))
    assert kept(path, SETTINGS | {"methods": ["words"]}) == figures


@pytest.mark.parametrize(("name", "other"), [("scenes", 5), ("steps", 800), ("seed", 4)])
def test_figures_of_other_scenes_or_steps_are_not_mixed_with_them(
    tmp_path: Path, name: str, other: int
) -> None:
    path = tmp_path / "concepts.json"
    path.write_text(json.dumps({"settings": SETTINGS | {name: other}, "environment": {}}))
    with pytest.raises(ValueError, match=f"are of {name} {other}, not {SETTINGS[name]}"):
        kept(path, SETTINGS)
