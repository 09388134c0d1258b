"""Trainings that are stopped, saved, resumed, and files that cannot be resumed from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from fakes import FakeBackbone
from training_runs import SHORT, run, same, scene

from ice_core.errors import IceError
from ice_core.model.backbone import Token
from ice_core.training import (
    Finished,
    Snapshot,
    TrainingConfig,
    TrainingState,
    train,
)


@pytest.mark.parametrize("stop", [4, 10, 14])
def test_a_resumed_run_gives_the_numbers_of_a_straight_one(tmp_path: Path, stop: int) -> None:
    config = TrainingConfig(
        steps=20,
        learning_rate=1.3e-4,
        snapshot_every=2,
        composition_weight=0.1,
        alignment_iterations=10,
        method="paper",
    )
    straight = run(config=config)
    events = train(FakeBackbone(), scene(), config)
    state = next(e.state for e in events if isinstance(e, Snapshot) and e.state.step == stop)
    events.close()
    (tmp_path / "state.safetensors").write_bytes(state.to_bytes())
    loaded = TrainingState.load(tmp_path / "state.safetensors")
    assert loaded.config == config
    resumed = run(config=config, resume=loaded)
    assert resumed[0] == straight[0][stop:]
    assert same(resumed[1], straight[1])


def test_resuming_a_finished_run_only_hands_over_the_result() -> None:
    *_, finished = train(FakeBackbone(), scene(), SHORT)
    assert isinstance(finished, Finished)
    events = list(train(FakeBackbone(), scene(), SHORT, resume=finished.state))
    assert [type(e) for e in events] == [Finished]
    assert same(events[0].learned, finished.learned)


def half_way() -> TrainingState:
    return next(e.state for e in train(FakeBackbone(), scene(), SHORT) if isinstance(e, Snapshot))


def test_a_state_of_other_things_is_refused_with_what_differs() -> None:
    state, picture = half_way(), scene()
    other = FakeBackbone()
    other.fingerprint = "0" * 64
    wide = dataclasses.replace(
        state, tokens={n: Token(n, {"clip_l": torch.zeros(1, 8)}) for n in state.tokens}
    )
    darker = dataclasses.replace(picture, image=picture.image / 2)
    for backbone, concepts, config, resume, message in (
        (
            other,
            picture,
            SHORT,
            state,
            "base model fake .stable-diffusion-v1, ffffffffffff., not fake .000000000000",
        ),
        (FakeBackbone(), picture, SHORT, wide, "'clip_l': 8}, but fake takes {'clip_l': 16}"),
        (FakeBackbone(), scene("ring"), SHORT, state, "of the objects ball-0, cube-1, not ring-0"),
        (FakeBackbone(), darker, SHORT, state, "another picture"),
        (FakeBackbone(), picture, dataclasses.replace(SHORT, seed=9), state, "made with seed 0, not 9"),
    ):
        with pytest.raises(IceError, match=message):
            train(backbone, concepts, config, resume=resume)


def test_snapshots_may_be_taken_at_another_pace_after_resuming() -> None:
    config = dataclasses.replace(SHORT, snapshot_every=1)
    assert same(run(config=config, resume=half_way())[1], run()[1])


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "state.safetensors"
    path.write_bytes(half_way().to_bytes())
    with pytest.raises(IceError, match="cannot read the training state"):
        TrainingState.load(tmp_path / "missing.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:200])
    with pytest.raises(IceError, match="cannot read the training state"):
        TrainingState.load(tmp_path / "cut.safetensors")
    tensors = load_file(path)
    save_file(tensors, tmp_path / "foreign.safetensors")
    with pytest.raises(IceError, match="is no training state"):
        TrainingState.load(tmp_path / "foreign.safetensors")

    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    name = "token/ball-0.object/clip_l"
    for tensors_, message in (
        ({k: v for k, v in tensors.items() if k != name}, "ball-0.object"),
        (tensors | {"generator": torch.zeros(3, dtype=torch.uint8)}, "generator's state has a wrong size"),
        (tensors | {f"moment/{name[6:]}/exp_avg": torch.zeros(2)}, "exp_avg has shape"),
    ):
        save_file(tensors_, tmp_path / "damaged.safetensors", metadata)
        with pytest.raises(IceError, match=message):
            TrainingState.load(tmp_path / "damaged.safetensors")
