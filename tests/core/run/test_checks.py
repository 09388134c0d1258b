"""What cannot work is refused before anything is looked for or written."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from extractions import SETTINGS, scene
from fakes import FakeBackbone
from torch import Tensor

from ice_core.errors import IceError
from ice_core.localization.retrieval.dictionary import Vocabulary
from ice_core.localization.retrieval.retriever import Retriever
from ice_core.run.events import RunEvent
from ice_core.run.pipeline import extract, finish, resume
from ice_core.run.report import Report
from ice_core.run.settings import ExtractionSettings
from ice_core.training.refinement_state import RefinementConfig


class NotAsked:
    """Towers that nothing should reach."""

    name, fingerprint = "not asked", "00" * 32

    def encode_images(self, images: Tensor) -> Tensor:
        raise AssertionError("a picture was embedded")

    def encode_texts(self, texts: list[str]) -> Tensor:
        raise AssertionError("words were embedded")


def with_axes(*axes: str) -> ExtractionSettings:
    return replace(SETTINGS, training=replace(SETTINGS.training, axes=axes))


def refused(out: Path, match: str, settings: ExtractionSettings = SETTINGS, **named: object) -> None:
    """The stream is not even begun."""
    retriever = named.pop("retriever", None)
    with pytest.raises(IceError, match=match):
        extract(FakeBackbone(), retriever, scene()[0], out, settings, **named)  # type: ignore[arg-type]
    assert not out.exists()


def test_a_label_too_long_for_the_prompts_is_refused(tmp_path: Path) -> None:
    label = " ".join(["ball"] * 17)
    refused(tmp_path / "out", "too long for the model; shorten it", labels=[label, "cube"])
    refined = replace(SETTINGS, refinement=RefinementConfig(steps=2))
    label, masks = " ".join(["ball"] * 15), [torch.ones(96, 160, dtype=torch.bool)]
    extract(FakeBackbone(), None, scene()[0], tmp_path / "out", SETTINGS, [label], masks)
    refused(tmp_path / "out", "too long for the model", refined, labels=[label], masks=masks)


def test_more_axes_than_a_prompt_can_name_are_refused(tmp_path: Path) -> None:
    axes = tuple(f"axis{i}" for i in range(30))
    refused(tmp_path / "out", "30 axes are too many", with_axes(*axes), labels=["ball"])


def test_axes_that_would_share_a_file_are_refused_without_labels_too(tmp_path: Path) -> None:
    vocabulary = Vocabulary.from_text("ball")
    retriever = Retriever(NotAsked(), vocabulary, cache_folder=tmp_path / "cache")
    refused(tmp_path / "out", "share a file", with_axes("Color", "color"), retriever=retriever)


@pytest.mark.parametrize("word", ["a/c unit", "{ball}", "con", "b" * 151, "ball?"])
def test_words_that_can_name_no_file_are_refused(tmp_path: Path, word: str) -> None:
    retriever = Retriever(NotAsked(), Vocabulary.from_text(f"cube\n{word}"), cache_folder=tmp_path / "cache")
    refused(tmp_path / "out", "1 of the words cannot name a file", retriever=retriever)


def test_words_that_name_no_object_may_be_anything(tmp_path: Path) -> None:
    vocabulary = Vocabulary(("ball", "con", "black/white"), (True, False, False))
    extract(FakeBackbone(), Retriever(NotAsked(), vocabulary), scene()[0], tmp_path / "out", SETTINGS)


def test_the_built_in_words_can_all_name_files(tmp_path: Path) -> None:
    retriever = Retriever(NotAsked(), Vocabulary.built_in())
    extract(FakeBackbone(), retriever, scene()[0], tmp_path / "out", SETTINGS)


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    image, masks = scene()

    def again() -> Generator[RunEvent, None, Report]:
        return extract(FakeBackbone(), None, image, tmp_path / "out", SETTINGS, ["ball", "cube"], masks)

    first, second, third = again(), again(), again()
    next(first)
    with pytest.raises(IceError, match="another run is at work in"):
        next(second)
    finish(first)
    with pytest.raises(IceError, match="holds a run already"):
        next(third)
    resumed = resume(FakeBackbone(), tmp_path / "out")
    next(resumed)
    with pytest.raises(IceError, match="another run is at work in"):
        next(resume(FakeBackbone(), tmp_path / "out"))
    resumed.close()
    assert not (tmp_path / "out" / ".lock").exists()
