"""Defaults that are written where importing them is quick say what the settings say."""

from __future__ import annotations

from typing import get_args

import pytest
from tiny_families import FAMILIES, tiny_family

from ice_core.run import defaults
from ice_core.training.config import STEPS, Method, TrainingConfig


def test_methods_and_their_steps_are_those_of_the_settings() -> None:
    assert get_args(Method) == defaults.METHODS
    assert STEPS["anchored"] == defaults.ANCHORED_STEPS
    assert STEPS["paper"] == STEPS["inversion"] == defaults.CHECKPOINT_STEPS
    plain = TrainingConfig()
    assert (plain.method, plain.axes) == (defaults.METHOD, defaults.AXES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_s_clip_is_the_one_beside_its_text_encoder(name: str) -> None:
    usual = {"sd1": "ViT-L-14-quickgelu", "sd2": "ViT-H-14", "sdxl": "ViT-bigG-14"}
    clip = defaults.clip_for(tiny_family(name).texts)
    assert clip.partition("/")[0] == usual[name.partition("-")[0]]


@pytest.mark.parametrize("clip", defaults.CLIPS.values())
def test_usual_clips_are_weights_that_open_clip_knows(clip: str) -> None:
    open_clip = pytest.importorskip("open_clip")
    name, _, weights = clip.partition("/")
    assert weights in open_clip.list_pretrained_tags_by_model(name)
