"""The end of a run: what is drawn, in one call per object, and how it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from extractions import SETTINGS, scene
from fakes import FakeBackbone
from judges import COLORS, ColorBlindToAllElse
from tokens import learned

from ice_core.concepts import Candidate, Concept, ConceptSet, LearnedConcepts, Reading
from ice_core.evaluation.quality import PICTURES, Quality
from ice_core.figures import presentation
from ice_core.model.backbone import Prompt
from ice_core.run.events import Drawn, Progress, Trained
from ice_core.run.folder import History
from ice_core.run.pipeline import finish
from ice_core.run.presenting import draw, sheet
from ice_core.run.settings import ShowingConfig
from ice_core.run.training import Job

IMAGE, MASKS = scene()
KEYS = ("ball", "cube")


def job(judge: ColorBlindToAllElse | None = None, values: dict[str, tuple[str, ...]] | None = None) -> Job:
    concepts = tuple(Concept(key, key, mask, 1.0) for key, mask in zip(KEYS, MASKS, strict=True))
    found = ConceptSet(IMAGE, concepts, torch.zeros_like(MASKS[0]))
    settings = replace(SETTINGS, showing=ShowingConfig(values=values or {}))
    return Job(FakeBackbone(), found, settings, "squares", "2025-01-01T00:00:00+00:00", judge=judge)


def read(*words: str, fits: bool = True) -> LearnedConcepts:
    """Learned tokens of objects whose color was read, the first of the words being the likeliest."""
    reading = Reading("color", tuple(Candidate(word, 1 / len(words)) for word in words), "clip", fits)
    plain = learned(KEYS)
    concepts = tuple(replace(c, readings={"color": reading}) for c in plain.concepts)
    return replace(plain, concepts=concepts)


def drawn(job: Job, tokens: LearnedConcepts) -> list[presentation.ShownConcept]:
    events: list[object] = []
    finish(draw(job, IMAGE, Trained(tokens, None, ())), events.append)
    assert [e.done for e in events if isinstance(e, Progress)] == [0, 1, 2]
    return [e.shown for e in events if isinstance(e, Drawn)]


def test_each_object_is_drawn_in_one_call_with_its_properties_on_the_other_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def counted(backbone: Any, prompts: Sequence[Prompt], *given: Any, **named: Any) -> torch.Tensor:
        calls.append(len(prompts))
        return original(backbone, prompts, *given, **named)

    original = presentation.sample
    monkeypatch.setattr(presentation, "sample", counted)
    ball, cube = drawn(job(), learned(KEYS))
    assert calls == [4 + 2 + 1 + 3] * 2
    assert [t.caption for t in ball.row.transfers] == ["color on a cube", "material on a cube"]
    assert [t.grade for t in ball.row.transfers] == [None, None]
    assert ball.quality == {}
    assert ball.compositions[0].caption == "the cube, in the ball's color and material"
    assert cube.compositions[0].caption == "the ball, in the cube's color and material"
    assert cube.compositions[0].prompt == "a photo of a {cube.color} {cube.material} {ball.object}"


def test_with_a_judge_what_was_read_is_looked_for_in_the_pictures_that_are_shown_anyway() -> None:
    values = {"color": COLORS}
    results: dict[str, Quality] = {}
    for word in COLORS:
        shown = drawn(job(ColorBlindToAllElse(), values), read(word))[0]
        assert list(shown.quality) == ["color"]
        results[word] = shown.quality["color"]
        assert [t.grade for t in shown.row.transfers] == [results[word].grade, None]
    assert sum(round(q.share * PICTURES) for q in results.values()) == PICTURES
    assert all(q.thing == "cube" for q in results.values())
    plain = drawn(job(), read("red"))[0]
    judged = drawn(job(ColorBlindToAllElse(), values), read("red"))[0]
    for one, other in zip(plain.row.transfers, judged.row.transfers, strict=True):
        assert one.without.tobytes() == other.without.tobytes()
        assert one.picture.tobytes() == other.picture.tobytes()


def test_without_words_of_an_axis_those_that_its_reading_weighed_are_held_against_it() -> None:
    assert drawn(job(ColorBlindToAllElse()), read("red", "green", "blue"))[0].quality
    assert not drawn(job(ColorBlindToAllElse()), read("red"))[0].quality


def test_a_value_that_shades_into_the_one_read_is_no_mistake() -> None:
    tokens = read("red")
    (reading,) = tokens.concepts[0].readings.values()
    shading = replace(reading, neighbors=tuple(word for word in COLORS if word != "red"))
    near = tuple(replace(c, readings={"color": shading}) for c in tokens.concepts)
    judging = job(ColorBlindToAllElse(), {"color": COLORS})
    assert drawn(judging, tokens)[0].quality
    assert not drawn(judging, replace(tokens, concepts=near))[0].quality


@pytest.mark.parametrize("tokens", [learned(KEYS), read("red", "green", fits=False)])
def test_what_was_not_read_is_not_judged(tokens: LearnedConcepts) -> None:
    shown = drawn(job(ColorBlindToAllElse(), {"color": COLORS}), tokens)[0]
    assert shown.quality == {}
    assert [t.grade for t in shown.row.transfers] == [None, None]


def test_a_host_gets_the_sheet_with_the_same_parts() -> None:
    trained = Trained(learned(KEYS), None, ())
    picture, _ = finish(sheet(job(), IMAGE, trained, History()))
    lone = replace(job().concepts, concepts=job().concepts.concepts[:1])
    one, _ = finish(sheet(replace(job(), concepts=lone), IMAGE, trained, History()))
    assert picture.width == one.width
    assert picture.height > one.height
