"""A training as the host sees it: what Cancel keeps, and that going on gives the same numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FakeBackbone

from ice_core.attributes.axes import parse_axes
from ice_core.concepts import Concept, ConceptSet
from ice_core.errors import IceError
from ice_core.files.concept_set import load_concept_set
from ice_core.files.embeddings import load_concepts
from ice_core.run.reading import Question
from ice_core.run.settings import ShowingConfig
from ice_core.training.config import TrainingConfig
from ice_core.training.refinement_state import RefinementConfig
from nodes import training_run
from nodes.training_run import Job, Result


class Cancelled(BaseException):
    """The host's InterruptProcessingException is no Exception either."""


class Bar:
    """Stands for the host's progress bar; cancels when told of a step."""

    cancel_at: int | None = None
    pictures: list[int]
    results: list[Any]
    steps: list[tuple[int, int]]

    def __init__(self, total: int) -> None:
        self.total = total

    def __call__(self, done: int, picture: Any = None) -> None:
        Bar.steps.append((done, self.total))
        if picture is not None:
            Bar.pictures.append(done)
        if Bar.cancel_at is not None and done >= Bar.cancel_at:
            raise Cancelled

    def result(self, picture: Any) -> None:
        Bar.results.append(picture)


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was written on the node, in order."""
    lines: list[str] = []
    Bar.cancel_at, Bar.pictures, Bar.results, Bar.steps = None, [], [], []
    monkeypatch.setattr(training_run, "Progress", Bar)
    monkeypatch.setattr(training_run, "say", lines.append)
    return lines


def job(**changes: Any) -> Job:
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[8:40, 8:40] = True
    found = ConceptSet(image, (Concept("ball", "ball", mask, 0.5),), ~mask)
    training = TrainingConfig(("color", "material"), steps=6, alignment_iterations=5, method="paper")
    refinement = RefinementConfig(prior_pictures=1)
    asked = Question(parse_axes(training.axes))
    return replace(
        Job(FakeBackbone(), image, found, training, refinement, 0, asked, ShowingConfig()), **changes
    )


def refined() -> Job:
    return job(refinement=RefinementConfig(steps=3, rank=1, prior_pictures=1))


def same(one: Result, other: Result) -> bool:
    tokens = one.learned.tokens
    return one.losses == other.losses and all(
        torch.equal(rows, other.learned.tokens[name].rows[encoder])
        for name, token in tokens.items()
        for encoder, rows in token.rows.items()
    )


def test_a_training_gives_tokens_losses_and_a_sheet_and_leaves_no_state(tmp_path: Path) -> None:
    result = training_run.run(job(), tmp_path, resume=True)
    assert set(result.learned.tokens) == {"ball.instance", "ball.object", "ball.color", "ball.material"}
    assert len(result.losses) == 6
    assert result.lora is None
    assert result.sheet.width > 500
    assert result.saved.learned is result.learned
    assert set(result.saved.thumbnails) == {"ball", *result.learned.tokens}
    assert result.saved.sheet is not None
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("step", [2, 3, 5])
def test_cancel_keeps_the_embeddings_and_going_on_gives_the_same_numbers(tmp_path: Path, step: int) -> None:
    straight = training_run.run(job(), tmp_path / "straight", resume=True)
    Bar.cancel_at = step
    with pytest.raises(Cancelled):
        training_run.run(job(), tmp_path / "kept", resume=True)
    (kept,) = (tmp_path / "kept").iterdir()
    assert load_concepts(kept).steps == step - 1
    everything = load_concept_set(kept / "concepts.safetensors")
    assert everything.learned.steps == step - 1
    assert [concept.key for concept in everything.found] == ["ball"]
    Bar.cancel_at = None
    assert same(training_run.run(job(), tmp_path / "kept", resume=True), straight)
    assert not kept.exists()


def test_cancel_in_the_refinement_keeps_the_lora_too(tmp_path: Path) -> None:
    straight = training_run.run(refined(), tmp_path / "straight", resume=True)
    assert len(straight.losses) == 9
    Bar.cancel_at = 8
    with pytest.raises(Cancelled):
        training_run.run(refined(), tmp_path / "kept", resume=True)
    (kept,) = (tmp_path / "kept").iterdir()
    assert list(kept.rglob("*lora*.safetensors"))
    Bar.cancel_at = None
    resumed = training_run.run(refined(), tmp_path / "kept", resume=True)
    assert same(resumed, straight)
    assert straight.lora is not None
    assert resumed.lora is not None
    assert all(torch.equal(resumed.lora.up[name], up) for name, up in straight.lora.up.items())


def test_losses_are_a_running_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = training_run.run(job(), tmp_path, resume=False).losses
    monkeypatch.setattr(training_run, "running_mean", lambda values, window: list(values))
    single = training_run.run(job(), tmp_path, resume=False).losses
    assert raw != single
    assert raw[2] == pytest.approx(sum(single[1:4]) / 3)


def test_the_sheet_is_the_last_picture_that_the_node_shows(tmp_path: Path) -> None:
    result = training_run.run(job(preview_every=2), tmp_path, resume=True)
    assert Bar.results == [result.sheet]


def test_the_node_tells_what_cancel_kept_and_where(tmp_path: Path, said: list[str]) -> None:
    Bar.cancel_at = 4
    with pytest.raises(Cancelled):
        training_run.run(job(), tmp_path / "ice" / "interrupted", resume=True)
    (kept,) = (tmp_path / "ice" / "interrupted").iterdir()
    assert said[-1].startswith("Stopped at step 3 of 6.")
    assert f"in ice/interrupted/{kept.name}: Run goes on" in said[-1]


def test_the_node_tells_the_stage_and_what_it_took(tmp_path: Path, said: list[str]) -> None:
    training_run.run(refined(), tmp_path, resume=True)
    assert said[:-1] == ["learning tokens", "drawing a prior", "refining weights", "drawing pictures"]
    assert said[-1].startswith("9 steps, ")


def test_nothing_is_said_to_be_kept_where_nothing_was(tmp_path: Path, said: list[str]) -> None:
    Bar.cancel_at = 0
    with pytest.raises(Cancelled):
        training_run.run(job(), tmp_path, resume=True)
    assert said == ["learning tokens"]


def test_without_resume_a_kept_state_is_not_looked_at(tmp_path: Path) -> None:
    Bar.cancel_at = 4
    with pytest.raises(Cancelled):
        training_run.run(job(), tmp_path, resume=True)
    (kept,) = tmp_path.iterdir()
    (kept / "training.safetensors").write_bytes(b"damaged")
    Bar.cancel_at = None
    with pytest.raises(IceError, match="turn `resume` off"):
        training_run.run(job(), tmp_path, resume=True)
    assert len(training_run.run(job(), tmp_path, resume=False).losses) == 6


def test_cancel_before_the_first_step_keeps_nothing(tmp_path: Path) -> None:
    Bar.cancel_at = 0
    with pytest.raises(Cancelled):
        training_run.run(job(), tmp_path, resume=True)
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_does_not_hide_why_training_ended(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    Bar.cancel_at = 3
    with pytest.raises(Cancelled):
        training_run.run(job(), tmp_path / "file", resume=False)


def test_live_pictures_come_when_asked_for_and_change_no_number(tmp_path: Path) -> None:
    plain = training_run.run(refined(), tmp_path, resume=False)
    assert Bar.pictures == []
    shown = training_run.run(replace(refined(), preview_every=2), tmp_path, resume=False)
    assert Bar.pictures == [2, 3, 4, 6, 8, 9], (
        "four previews, one where the first phase ends, and the object's row while the sheet is drawn"
    )
    assert same(shown, plain)


def test_the_key_changes_with_what_matters_and_with_nothing_else() -> None:
    key = job().key
    mask = job().concepts.concepts[0].mask.clone()
    mask[0, 0] = True
    other = replace(job().concepts, concepts=(Concept("ball", "ball", mask, 0.5),))
    for changed in (
        job(training=TrainingConfig(("color",), steps=6, method="paper")),
        job(training=replace(job().training, seed=1)),
        job(concepts=other),
        refined(),
    ):
        assert changed.key != key
    assert job(preview_every=3, refinement=RefinementConfig(rank=9)).key == key


def another() -> Job:
    return job(training=replace(job().training, seed=1))


def test_several_pictures_are_learned_with_one_bar_as_each_alone(tmp_path: Path, said: list[str]) -> None:
    alone = [training_run.run(one, tmp_path, resume=False) for one in (job(), another())]
    Bar.steps, Bar.results = [], []
    together = training_run.run_all({0: job(), 1: another()}, tmp_path, False, pictures=2)
    for n, result in enumerate(alone):
        assert same(together[n], result)
    assert {total for _, total in Bar.steps} == {12}
    done = [step for step, _ in Bar.steps]
    assert done == sorted(done)
    assert len(Bar.results) == 1, "the last picture of all stays on the node"
    assert "picture 2 of 2: learning tokens" in said
    assert not any(tmp_path.iterdir())


def test_what_fails_does_not_lose_the_rest(tmp_path: Path) -> None:
    broken = job(training=replace(job().training, seed=2))
    object.__setattr__(broken.asked, "overruled", ("teapot.color=red",))
    results = training_run.run_all({0: broken, 2: another()}, tmp_path, False, pictures=3)
    assert isinstance(results[0], IceError)
    assert isinstance(results[2], Result)


def test_cancel_at_a_later_picture_keeps_those_that_are_done(tmp_path: Path) -> None:
    Bar.cancel_at = 9
    with pytest.raises(Cancelled):
        training_run.run_all({0: job(), 1: another()}, tmp_path, True, pictures=2)
    sets = [load_concept_set(path / "concepts.safetensors") for path in tmp_path.iterdir()]
    assert sorted(one.learned.steps for one in sets) == [2, 6]
    assert [one.sheet is not None for one in sorted(sets, key=lambda one: one.learned.steps)] == [False, True]
    Bar.cancel_at, Bar.steps = None, []
    training_run.run_all({0: job(), 1: another()}, tmp_path, True, pictures=2)
    assert 1 not in [step for step, _ in Bar.steps], "the first is not learned again"
    assert not any(tmp_path.iterdir())


def test_where_nothing_is_trained_there_is_no_live_picture_to_draw(tmp_path: Path) -> None:
    words = TrainingConfig(("color", "material"), steps=0, method="words")
    result = training_run.run(job(training=words, preview_every=50), tmp_path, resume=True)
    assert result.losses == ()
    assert result.saved.sheet is not None
