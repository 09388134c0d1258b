"""What `benchmarks/concepts.py` keeps of an earlier run, and how it puts scenes together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from concepts import Job, Tally, kept, true_mixtures
from fakes import FakeBackbone

from ice_core.model.backbone import Token
from ice_core.run.defaults import BUNDLED_STEPS
from ice_core.training.config import STEPS
from ice_core.world.scenes import PATTERN_SCALES, Scene, SceneObject

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


def test_objects_of_several_scenes_make_one_figure() -> None:
    first, second = Tally(), Tally()
    first.add("shade_error", [1.0, 2.0, 9.0])
    second.add("shade_error", [4.0])
    second.add("recomposition", [0.5, 1.0])
    first.extend(second)
    assert first.values == {"shade_error": [2.0, 4.0], "recomposition": [0.75]}
    assert first.figures()["shade_error"] == 3.0


def test_a_job_trains_each_method_in_its_own_number_of_steps() -> None:
    job = Job(("anchored",), 3, "seen", None, 2, 1)
    assert job.training("words").steps == 0
    assert job.training("anchored").steps == STEPS["anchored"]
    assert job.training("paper").steps == BUNDLED_STEPS
    assert replace(job, steps=5).training("paper").steps == 5


def test_true_mixtures_say_the_width_and_finish_that_an_object_has() -> None:
    backbone = FakeBackbone()
    wide = SceneObject(
        "ball", "red", "rubber", "striped", 0, 0, 1, 0, scale=PATTERN_SCALES[1], roughness=0.25
    )
    (parts,) = true_mixtures(backbone, Scene((wide,), "sand", 0))
    assert parts.whole == (parts.axes["pattern"], parts.axes["color"], parts.axes["material"], "ball")
    for axis, words in (
        ("pattern", {"striped": 0.5, "wide": 0.5}),
        ("material", {"rubber": 0.75, "shiny": 0.25}),
    ):
        token = parts.axes[axis]
        assert isinstance(token, Token)
        for encoder, row in token.rows.items():
            rows = [weight * backbone.word_rows(word)[encoder][0] for word, weight in words.items()]
            wanted = torch.stack(rows).sum(0)
            norm = sum(float(row.norm()) for row in rows)
            torch.testing.assert_close(row[0], wanted * norm / wanted.norm())
