"""What all methods of training have in common: resuming, stopping, errors, and what they leave alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from fakes import FakeBackbone
from training_runs import Breaking, run, same, scene

from ice_core.concepts import Candidate, Reading, said
from ice_core.errors import IceError
from ice_core.training import (
    AnchoredConfig,
    Finished,
    Method,
    Snapshot,
    StepDone,
    TrainingConfig,
    TrainingState,
    learned_so_far,
    train,
)

READINGS = {
    "ball-0": {
        "color": Reading("color", (Candidate("red", 0.7), Candidate("pink", 0.2)), "clip", True, ("pink",)),
        "material": Reading(
            "material", (Candidate("metal", 0.4), Candidate("glass", 0.3)), "clip", fits=False
        ),
        "mood": Reading("mood", (), "clip"),
    },
    "cube-1": {"color": said("color", "dark blue"), "material": said("material", "wood")},
}
TRAINED: tuple[Method, ...] = ("anchored", "paper", "inversion")


def settings(method: Method, **changes: object) -> TrainingConfig:
    config = TrainingConfig(
        ("color", "material", "mood"),
        steps=0 if method == "words" else 8,
        learning_rate=1e-4,
        snapshot_every=1,
        alignment_iterations=5,
        method=method,
        anchored=AnchoredConfig(batch=2, evaluations=4, evaluate_every=3),
    )
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_resumed_run_gives_the_numbers_of_a_straight_one(tmp_path: Path, method: Method, stop: int) -> None:
    config = settings(method)
    straight = run(config=config, readings=READINGS)
    events = train(FakeBackbone(), scene(), config, READINGS)
    state = next(e.state for e in events if isinstance(e, Snapshot) and e.state.step == stop)
    events.close()
    (tmp_path / "state.safetensors").write_bytes(state.to_bytes())
    loaded = TrainingState.load(tmp_path / "state.safetensors")
    assert loaded.config == config
    assert loaded.readings == READINGS
    resumed = run(config=config, resume=loaded)
    assert resumed[0] == straight[0][stop:]
    assert same(resumed[1], straight[1])
    assert resumed[1].concepts[0].readings == READINGS["ball-0"]


def test_a_resumed_run_gives_the_same_numbers_with_an_anchor_on_other_things(tmp_path: Path) -> None:
    plain = settings("anchored")
    config = dataclasses.replace(plain, anchored=dataclasses.replace(plain.anchored, off_axis=1.0))
    straight = run(config=config, readings=READINGS)
    assert all(event.losses["off_axis"] >= 0 for event in straight[0] if event.phase == 2)
    state = next(
        e.state
        for e in train(FakeBackbone(), scene(), config, READINGS)
        if isinstance(e, Snapshot) and e.state.step == 3
    )
    resumed = run(config=config, resume=state)
    assert resumed[0] == straight[0][3:]
    assert same(resumed[1], straight[1])


@pytest.mark.parametrize("method", TRAINED)
def test_divergence_hands_over_the_last_good_state(method: Method) -> None:
    seen: list[object] = []
    # Mixtures are solved for without gradients.
    good = 2 + (settings(method).switch if method == "anchored" else 0)
    with pytest.raises(IceError, match=f"diverged at step {good + 1} of 8"):
        seen.extend(train(Breaking(2), scene(), settings(method), READINGS))
    last = seen[-1]
    assert isinstance(last, Snapshot)
    assert last.state.step == good
    straight, resumed = (
        run(config=settings(method), readings=READINGS),
        run(config=settings(method), resume=last.state),
    )
    assert same(straight[1], resumed[1])


def test_mixtures_that_cannot_be_solved_for_hand_over_the_last_good_state() -> None:
    class Dark(FakeBackbone):
        left = 3 + 2
        """Calls: of the first step as it is and towards two words, and of the second but for a word."""

        def predict(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            self.left -= 1
            return super().predict(*args, **kwargs) * (float("nan") if self.left < 0 else 1)

    seen: list[object] = []
    with pytest.raises(IceError, match="diverged at step 2 of 8"):
        seen.extend(train(Dark(), scene(), settings("anchored"), READINGS))
    last = seen[-1]
    assert isinstance(last, Snapshot)
    extra = last.state.extra
    assert all(bool(v.isfinite().all()) for name, v in extra.items() if not name.startswith("record/"))
    whole = run(config=settings("anchored"), readings=READINGS)
    assert same(whole[1], run(config=settings("anchored"), resume=last.state)[1])


@pytest.mark.parametrize("method", get_args(Method))
def test_nothing_of_the_model_changes_and_modes_stay(method: Method) -> None:
    backbone = FakeBackbone()
    before = {name: weight.clone() for name, weight in backbone.weights.items()}
    outside = run(config=settings(method), readings=READINGS)[1]
    with torch.inference_mode():
        events = []
        for event in train(backbone, scene(), settings(method), READINGS):
            events.append(event)
            assert torch.is_inference_mode_enabled()
            assert not torch.is_grad_enabled()
    assert isinstance(events[-1], Finished)
    assert same(events[-1].learned, outside)
    assert all(torch.equal(backbone.weights[name], before[name]) for name in before)


def test_words_are_there_at_once_and_prompt_as_the_words_themselves() -> None:
    backbone = FakeBackbone()
    events = list(
        train(backbone, scene(), TrainingConfig(("color", "material", "mood"), method="words"), READINGS)
    )
    assert [type(e) for e in events] == [Snapshot, Finished]
    assert isinstance(events[-1], Finished)
    ball, cube = events[-1].learned.concepts
    assert (ball.instance, set(ball.intrinsics), set(cube.intrinsics)) == (
        None,
        {"color"},
        {"color", "material"},
    )
    for token, word in (
        (ball.object, "ball"),
        (ball.intrinsics["color"], "red"),
        (cube.intrinsics["color"], "dark blue"),
    ):
        assert torch.equal(token.rows["clip_l"], backbone.word_rows(word)["clip_l"])


@pytest.mark.parametrize("method", ["words", "anchored"])
def test_an_axis_where_nothing_fits_gets_no_token_and_a_free_one_only_by_learning(method: Method) -> None:
    ball = run(config=settings(method), readings=READINGS)[1].concepts[0]
    assert set(ball.intrinsics) == ({"color"} if method == "words" else {"color", "mood"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "magic"}, "no method 'magic': choose words, anchored, paper, inversion"),
        ({"method": "words", "steps": 5}, "words trains nothing: leave steps out"),
        ({"method": "inversion", "steps": 0}, "needs 1 steps or more"),
        ({"method": "anchored", "steps": 1}, "needs 2 steps or more"),
    ],
)
def test_methods_that_cannot_work_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(IceError, match=message):
        TrainingConfig(**change)  # type: ignore[arg-type]


def test_each_method_has_its_own_number_of_steps() -> None:
    assert [TrainingConfig(method=m).steps for m in get_args(Method)] == [0, 16, 800, 800]


def test_readings_of_other_objects_are_refused() -> None:
    with pytest.raises(IceError, match="readings of 'vase', but the objects are ball-0, cube-1"):
        train(FakeBackbone(), scene(), settings("anchored"), {"vase": {}})


def test_a_settled_training_ends_early_and_stays_ended() -> None:
    patient = AnchoredConfig(batch=1, solving=0, evaluations=1, evaluate_every=1, patience=1, residual_rate=0)
    config = settings("anchored", steps=50, anchored=patient)
    *events, last = train(FakeBackbone(), scene(), config, READINGS)
    assert isinstance(last, Finished)
    assert last.state.settled
    assert sum(isinstance(e, StepDone) for e in events) < 50
    again = list(train(FakeBackbone(), scene(), config, resume=last.state))
    assert [type(e) for e in again] == [Finished]
    assert same(learned_so_far(last.state), again[0].learned)  # type: ignore[union-attr]
