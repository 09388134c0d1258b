"""What a run reads of its objects before it learns: who reads, what is kept, and what a user knows better."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from extractions import SETTINGS, scene
from fakes import FakeBackbone
from torch import Tensor

from ice_core.attributes.values import Axis
from ice_core.concepts import ConceptSet, unit
from ice_core.errors import IceError
from ice_core.files.embeddings import load_concepts
from ice_core.localization.given import concepts_from_masks
from ice_core.run import finding
from ice_core.run.events import Found, Read, RunEvent, Trained
from ice_core.run.pipeline import extract, finish, resume
from ice_core.training.config import AnchoredConfig, TrainingConfig

AXES = (Axis("color", ("red", "blue")), Axis("mood"))
QUICK = dataclasses.replace(
    SETTINGS,
    training=TrainingConfig(
        ("color", "mood"), steps=4, snapshot_every=1, anchored=AnchoredConfig(batch=1, evaluations=1)
    ),
)


class RedOrBlue:
    """Towers that know two colors of whatever is shown."""

    name, fingerprint, scale = "colors", "c" * 64, 100.0

    def encode_images(self, images: Tensor) -> Tensor:
        return unit(images.mean((2, 3)))

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        return unit(torch.tensor([[float("red" in t), 0.1, float("blue" in t)] for t in texts]))


def events_of(out: Path, overruled: Sequence[str] = (), towers: RedOrBlue | None = None) -> list[RunEvent]:
    image, masks = scene()
    told: list[RunEvent] = []
    events = extract(
        FakeBackbone(), None, image, out, QUICK, ["ball", "cube"], masks, axes=AXES, overruled=overruled,
        towers=towers,
    )  # fmt: skip
    finish(events, told.append)
    return told


def test_what_reads_the_objects_also_tells_which_label_each_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, masks = scene()
    towers, given = RedOrBlue(), []

    def found(_: object, picture: Tensor, labels: Sequence[str], *more: object) -> ConceptSet:
        given.append(more[-1])
        return concepts_from_masks(picture, labels, masks)

    monkeypatch.setattr(finding, "concepts_from_labels", found)
    events = extract(
        FakeBackbone(), None, image, tmp_path / "out", QUICK, ["ball", "cube"], axes=AXES, towers=towers
    )
    next(event for event in events if isinstance(event, Found))
    assert given == [towers]


def test_objects_are_read_and_the_readings_kept_with_their_tokens(tmp_path: Path) -> None:
    told = events_of(tmp_path / "out", towers=RedOrBlue())
    (read,) = (event for event in told if isinstance(event, Read))
    assert {key: axes["color"].value for key, axes in read.readings.items()} == {
        "ball": "red",
        "cube": "blue",
    }
    assert read.readings["ball"]["mood"].value is None
    ball, cube = load_concepts(tmp_path / "out").concepts
    assert (ball.readings["color"].value, cube.readings["color"].value) == ("red", "blue")
    assert set(ball.intrinsics) == {"color", "mood"}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["concepts"][0]["readings"]["color"]["candidates"][0]["value"] == "red"
    assert report["seconds"]["reading"] >= 0


def test_a_user_knows_better(tmp_path: Path) -> None:
    told = events_of(tmp_path / "out", ["ball.color=green", "cube.color="], RedOrBlue())
    (trained,) = (event for event in told if isinstance(event, Trained))
    ball, cube = trained.learned.concepts
    assert (ball.readings["color"].value, ball.readings["color"].reader) == ("green", "user")
    assert set(cube.intrinsics) == {"mood"}


def test_without_a_clip_the_model_reads_for_itself(tmp_path: Path) -> None:
    (read,) = (event for event in events_of(tmp_path / "out") if isinstance(event, Read))
    assert read.readings["ball"]["color"].reader == "model"


def test_a_resumed_run_keeps_its_readings(tmp_path: Path) -> None:
    image, masks = scene()
    events = extract(
        FakeBackbone(), None, image, tmp_path / "out", QUICK, ["ball", "cube"], masks, axes=AXES,
        towers=RedOrBlue(),
    )  # fmt: skip
    for event in events:
        if isinstance(event, Read):
            break
    events.close()
    told: list[RunEvent] = []
    finish(resume(FakeBackbone(), tmp_path / "out"), told.append)
    (trained,) = (event for event in told if isinstance(event, Trained))
    assert trained.learned.concepts[1].readings["color"].value == "blue"


def test_what_is_said_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IceError, match="there are: ball, cube"):
        events_of(tmp_path / "out", ["vase.color=red"], RedOrBlue())
    image, masks = scene()
    with pytest.raises(IceError, match="the axes color are not the settings' color, mood"):
        extract(FakeBackbone(), None, image, tmp_path / "two", QUICK, ["ball", "cube"], masks, axes=AXES[:1])
