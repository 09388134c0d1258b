"""The figure that says how the objects of a picture were found."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from color_words import BALL, CUBE, ColorWords, Scripted, scene
from PIL import Image

from ice_core.concepts import Candidate
from ice_core.figures.rounds import considered, rounds_figure
from ice_core.localization.config import LocalizationConfig
from ice_core.localization.loop import LocalizationRound, localize
from ice_core.localization.segmentation import ObjectsConfig, SegmentationConfig


@dataclass(frozen=True)
class Scored:
    label: str
    similarity: float


def rounds(strategy: str) -> list[LocalizationRound]:
    config = LocalizationConfig(
        strategy=strategy,  # type: ignore[arg-type]
        unexplained=0.0,
        objects=ObjectsConfig(timestep=20, cut_timestep=20, guide=0, walk=0),
        segmentation=SegmentationConfig(timestep=20, guide=0),
    )
    words = Scripted("ball", "cube")
    return list(localize(ColorWords(), words, scene(BALL, CUBE), config, torch.Generator().manual_seed(0)))


def changed(first: Image.Image, second: Image.Image) -> bool:
    return first.size != second.size or bool((np.asarray(first) != np.asarray(second)).any())


@pytest.mark.parametrize("strategy", ["objects", "words"])
def test_there_is_a_row_per_round(strategy: str) -> None:
    every = rounds(strategy)
    one, all_ = rounds_figure(every[:1]), rounds_figure(every)
    assert len(every) > 1
    assert all_.width == one.width
    assert all_.height - one.height == (len(every) - 1) * (rounds_figure(every[:2]).height - one.height)


def test_words_show_with_their_similarity_and_the_reason_of_the_end() -> None:
    (first, *_) = rounds("objects")
    step = replace(first, candidates=(Scored("ball", 0.3), Scored("bead", 0.1)))
    assert considered(step) == [
        {"label": "ball", "similarity": 0.3, "definition": None},
        {"label": "bead", "similarity": 0.1, "definition": None},
    ]
    assert considered(first)[0]["similarity"] is None
    plain = rounds_figure([step])
    assert changed(plain, rounds_figure([replace(step, candidates=step.candidates[:1])]))
    assert changed(plain, rounds_figure([replace(step, ended="every object has its name")]))


def test_a_finer_name_stands_behind_the_plain_one() -> None:
    (first, *_) = rounds("objects")
    finer = replace(first.found[0], finer=(Candidate("golf ball", 0.7),))
    assert changed(rounds_figure([first]), rounds_figure([replace(first, found=(finer,))]))


def test_a_round_without_words_or_finds_is_drawn_too() -> None:
    (first, *_) = rounds("objects")
    many = tuple(Scored(f"word {n}", -0.1) for n in range(20))
    for step in (
        replace(first, candidates=(), found=(), label=""),
        replace(first, candidates=many, found=()),
    ):
        assert rounds_figure([step]).width > 0
