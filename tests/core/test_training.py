"""Stage Two on a fake backbone: what is learned, what stays, and how it stops and goes on."""

from __future__ import annotations

import dataclasses
import gc
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from fakes import FakeBackbone
from torch import Tensor

from ice_core.attention import AttentionRecorder
from ice_core.backbone import Prompt, TextFeatures, Token
from ice_core.concepts import Concept, ConceptSet, LearnedConcepts
from ice_core.errors import IceError
from ice_core.lora import Lora
from ice_core.training import (
    Finished,
    InversionConfig,
    Inverted,
    Snapshot,
    StepDone,
    TrainingConfig,
    TrainingState,
    invert,
    learned_so_far,
    train,
)
from ice_core.training.descent import adamw, row_sizes, trainable
from ice_core.training.scene import alignment_size


def scene(*labels: str, size: tuple[int, int] = (64, 64)) -> ConceptSet:
    """A picture with one upright band of its own colour per label."""
    height, width = size
    labels = labels or ("ball", "cube")
    rng = torch.Generator().manual_seed(3)
    image = torch.full((3, height, width), 0.5)
    concepts = []
    for i, label in enumerate(labels):
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[8:-8, i * width // len(labels) : (i + 1) * width // len(labels) - 8] = True
        image[:, mask] = torch.rand(3, 1, generator=rng)
        concepts.append(Concept(f"{label.replace(' ', '-')}-{i}", label, mask, 1.0))
    return ConceptSet(image, tuple(concepts), torch.zeros(height, width, dtype=torch.bool))


SHORT = TrainingConfig(steps=8, learning_rate=1.3e-4, snapshot_every=4, alignment_iterations=10)


def run(
    concepts: ConceptSet | None = None,
    config: TrainingConfig = SHORT,
    backbone: FakeBackbone | None = None,
    resume: TrainingState | None = None,
) -> tuple[list[StepDone], LearnedConcepts]:
    events = list(train(backbone or FakeBackbone(), concepts or scene(), config, resume))
    assert isinstance(events[-1], Finished)
    return [event for event in events if isinstance(event, StepDone)], events[-1].learned


def same(one: LearnedConcepts, other: LearnedConcepts) -> bool:
    first, second = one.tokens, other.tokens
    return first.keys() == second.keys() and all(
        torch.equal(first[name].rows[k], second[name].rows[k]) for name in first for k in first[name].rows
    )


def test_events_come_in_order_and_name_both_phases() -> None:
    kinds = [type(event).__name__ for event in train(FakeBackbone(), scene(), SHORT)]
    assert kinds == (["StepDone"] * 4 + ["Snapshot"]) * 2 + ["Finished"]
    steps, _ = run()
    assert [(s.step, s.steps, s.phase) for s in steps] == [(i, 8, 1 if i <= 4 else 2) for i in range(1, 9)]
    assert set(steps[0].losses) == {"total", "denoising", "alignment", "triplet"}


def test_the_total_is_the_weighted_sum_of_its_terms() -> None:
    steps, _ = run(config=dataclasses.replace(SHORT, alignment_weight=0.3, composition_weight=0.2))
    for step in steps:
        triplet = 1.0 if step.phase == 1 else 0.05
        weights = {"denoising": 1, "alignment": 0.3, "triplet": triplet, "composition": 0.2}
        expected = sum(weights[name] * value for name, value in step.losses.items() if name != "total")
        assert step.losses["total"] == pytest.approx(expected, rel=1e-5)
    assert "composition" not in steps[0].losses
    assert "composition" in steps[-1].losses


def test_the_loss_falls_in_both_phases() -> None:
    config = TrainingConfig(
        steps=400, learning_rate=6.5e-4, batch=4, alignment_iterations=5, snapshot_every=400
    )
    steps, _ = run(config=config)
    totals = torch.tensor([step.losses["total"] for step in steps]).view(2, 10, 20).mean(-1)
    assert totals[0, -1] < totals[0, 0]
    assert totals[1, -1] < totals[1, 0]


def test_every_token_is_learned_and_has_the_model_s_shape() -> None:
    learned = run()[1]
    assert [c.key for c in learned.concepts] == ["ball-0", "cube-1"]
    assert set(learned.tokens) == {
        f"{key}.{kind}"
        for key in ("ball-0", "cube-1")
        for kind in ("instance", "object", "color", "material", "pattern")
    }
    assert learned.steps == 8
    assert learned.base_fingerprint == FakeBackbone.fingerprint
    for concept in learned.concepts:
        start = FakeBackbone().word_rows(concept.label)["clip_l"]
        for token in concept.tokens.values():
            rows = token.rows["clip_l"]
            assert rows.shape == (1, 16)
            assert not rows.requires_grad
            assert not torch.equal(rows, start)


def test_nothing_of_the_model_changes_or_collects_gradients() -> None:
    backbone = FakeBackbone()
    before = {name: weight.clone() for name, weight in backbone.weights.items()}
    for weight in backbone.weights.values():
        weight.requires_grad_()
    run(backbone=backbone)
    for name, weight in backbone.weights.items():
        assert torch.equal(weight, before[name])
        assert weight.grad is None


def test_phase_two_freezes_the_object_and_starts_from_the_instance() -> None:
    states = [e.state for e in train(FakeBackbone(), scene(), SHORT) if isinstance(e, Snapshot)]
    half, end = states
    for key in ("ball-0", "cube-1"):
        for kind in ("instance", "object"):
            name = f"{key}.{kind}"
            assert torch.equal(half.tokens[name].rows["clip_l"], end.tokens[name].rows["clip_l"])
        start = learned_so_far(half).tokens
        assert torch.equal(start[f"{key}.color"].rows["clip_l"], start[f"{key}.instance"].rows["clip_l"])
    assert "ball-0.color" not in half.tokens


def test_an_object_that_is_not_drawn_stays_where_it_is() -> None:
    config = dataclasses.replace(SHORT, snapshot_every=1)
    previous: TrainingState | None = None
    for event in train(FakeBackbone(), scene(), config):
        if (
            isinstance(event, Snapshot)
            and previous is not None
            and previous.phase == 1
            and event.state.step <= 4
        ):
            moved = {
                name.split(".")[0]
                for name, token in event.state.tokens.items()
                if not torch.equal(token.rows["clip_l"], previous.tokens[name].rows["clip_l"])
            }
            assert len(moved) == 1
        previous = event.state if isinstance(event, Snapshot) else previous


def test_a_label_of_several_tokens_starts_from_their_mean() -> None:
    config = dataclasses.replace(SHORT, learning_rate=1e-30, weight_decay=0)
    learned = run(scene("toy ball"), config)[1]
    expected = FakeBackbone().word_rows("toy ball")["clip_l"].mean(0, keepdim=True)
    assert torch.equal(learned.concepts[0].object.rows["clip_l"], expected)


@pytest.mark.parametrize(
    ("labels", "axes"),
    [(("ball",), ("color", "material")), (("ball", "cube"), ("color",)), (("ball",), ("color",))],
)
def test_one_object_or_one_axis_is_enough(labels: tuple[str, ...], axes: tuple[str, ...]) -> None:
    steps, learned = run(scene(*labels), dataclasses.replace(SHORT, axes=axes))
    assert len(learned.tokens) == len(labels) * (2 + len(axes))
    assert all(torch.isfinite(torch.tensor(list(step.losses.values()))).all() for step in steps)


def test_same_seed_same_result_and_another_seed_another() -> None:
    first, again = run(), run()
    other = run(config=dataclasses.replace(SHORT, seed=1))
    assert first[0] == again[0]
    assert same(first[1], again[1])
    assert not same(first[1], other[1])


def test_global_randomness_is_neither_used_nor_moved() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = run()[1]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert same(first, run()[1])


def test_the_order_of_objects_does_not_matter() -> None:
    there = scene("ball", "cube", "ring")
    back = dataclasses.replace(there, concepts=there.concepts[::-1])
    one, other = run(there)[1], run(back)[1]
    assert same(one, other)
    assert [c.key for c in other.concepts] == [c.key for c in back.concepts]


@pytest.mark.parametrize("stop", [4, 10, 14])
def test_a_resumed_run_gives_the_numbers_of_a_straight_one(tmp_path: Path, stop: int) -> None:
    config = TrainingConfig(
        steps=20, learning_rate=1.3e-4, snapshot_every=2, composition_weight=0.1, alignment_iterations=10
    )
    straight = run(config=config)
    events = train(FakeBackbone(), scene(), config)
    state = next(e.state for e in events if isinstance(e, Snapshot) and e.state.step == stop)
    events.close()
    state.save(tmp_path / "run" / "state.safetensors")
    loaded = TrainingState.load(tmp_path / "run" / "state.safetensors")
    assert loaded.config == config
    resumed = run(config=config, resume=loaded)
    assert resumed[0] == straight[0][stop:]
    assert same(resumed[1], straight[1])


def test_resuming_a_finished_run_only_hands_over_the_result() -> None:
    *_, finished = train(FakeBackbone(), scene(), SHORT)
    assert isinstance(finished, Finished)
    events = list(train(FakeBackbone(), scene(), SHORT, finished.state))
    assert [type(e) for e in events] == [Finished]
    assert same(events[0].learned, finished.learned)


def test_cancelling_leaves_modes_and_memory_as_they_were() -> None:
    gc.collect()
    before = sum(issubclass(type(o), Tensor) and o.requires_grad for o in gc.get_objects())
    backbone = FakeBackbone()
    with torch.no_grad():
        events = train(backbone, scene(), SHORT)
        next(events)
        assert not torch.is_grad_enabled()
        events.close()
    assert all(weight.grad is None for weight in backbone.weights.values())
    del events
    gc.collect()
    assert sum(issubclass(type(o), Tensor) and o.requires_grad for o in gc.get_objects()) == before


def test_it_works_inside_inference_mode_and_does_not_leave_it() -> None:
    outside, backbone = run()[1], FakeBackbone()
    with torch.inference_mode():
        concepts = scene()
        for event in train(backbone, concepts, SHORT):
            assert torch.is_inference_mode_enabled()
            assert not torch.is_grad_enabled()
            if isinstance(event, Snapshot):
                assert not any(t.rows["clip_l"].is_inference() for t in event.state.tokens.values())
    assert isinstance(event, Finished)
    assert same(event.learned, outside)
    with torch.inference_mode():
        *_, token = invert(backbone, concepts.image, "ball", InversionConfig(steps=2))
    assert isinstance(token, Inverted)


class Breaking(FakeBackbone):
    """Predicts NaN from the n-th gradient-carrying call on."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: TextFeatures,
        recorder: AttentionRecorder | None = None,
        lora: Lora | None = None,
    ) -> Tensor:
        output = super().predict(noisy, timesteps, text, recorder, lora)
        if torch.is_grad_enabled():
            self.left -= 1
        return output * float("nan") if self.left < 0 else output


@pytest.mark.parametrize("good", [0, 3, 6])
def test_divergence_hands_over_the_last_good_state_before_it_raises(good: int) -> None:
    seen: list[object] = []
    with pytest.raises(IceError, match=rf"diverged at step {good + 1} of 8: lower the learning rate"):
        seen.extend(train(Breaking(good), scene(), SHORT))
    last = seen[-1]
    assert isinstance(last, Snapshot)
    assert last.state.step == good
    assert all(torch.isfinite(t.rows["clip_l"]).all() for t in learned_so_far(last.state).tokens.values())
    straight, resumed = run(), run(resume=last.state)
    assert same(straight[1], resumed[1])


def test_only_the_placeholders_are_recorded_and_only_where_they_are_read() -> None:
    class Watching(FakeBackbone):
        seen: list[tuple[Tensor, object]]

        def predict(
            self,
            noisy: Tensor,
            timesteps: Tensor,
            text: TextFeatures,
            recorder: AttentionRecorder | None = None,
            lora: Lora | None = None,
        ) -> Tensor:
            if torch.is_grad_enabled() and recorder is not None:
                assert recorder.columns is not None
                self.seen.append((recorder.columns, recorder.sizes))
            return super().predict(noisy, timesteps, text, recorder, lora)

    backbone = Watching()
    backbone.seen = []
    run(config=dataclasses.replace(SHORT, templates=("the red {} here",)), backbone=backbone)
    assert [columns.tolist() for columns, _ in backbone.seen] == [[3, 4]] * 4 + [[3, 4, 5, 6]] * 4
    assert all(sizes == [(8, 8)] for _, sizes in backbone.seen)
    backbone.seen = []
    run(config=dataclasses.replace(SHORT, alignment_weight=0), backbone=backbone)
    assert backbone.seen == []


def test_one_text_batch_per_step_and_one_image_batch_in_all() -> None:
    class Counting(FakeBackbone):
        texts = images = 0

        def encode_prompts(self, prompts: Sequence[Prompt]) -> TextFeatures:
            self.texts += torch.is_grad_enabled()
            return super().encode_prompts(prompts)

        def encode_image(self, images: Tensor) -> Tensor:
            self.images += 1
            return super().encode_image(images)

    backbone = Counting()
    run(backbone=backbone)
    assert (backbone.texts, backbone.images) == (8, 1)


def test_pictures_need_not_be_square() -> None:
    steps, _ = run(scene(size=(48, 96)), dataclasses.replace(SHORT, batch=3))
    assert len(steps) == 8


def test_velocity_models_learn_too() -> None:
    backbone = FakeBackbone()
    backbone.prediction = "v_prediction"
    assert run(backbone=backbone)[0] != run()[0]


def test_alignment_reads_the_recorded_size_nearest_to_a_quarter() -> None:
    class Pyramid(FakeBackbone):
        sizes: tuple[tuple[int, int], ...]

        def predict(
            self,
            noisy: Tensor,
            timesteps: Tensor,
            text: TextFeatures,
            recorder: AttentionRecorder | None = None,
            lora: Lora | None = None,
        ) -> Tensor:
            for size in self.sizes if recorder else ():
                queries = torch.zeros(1, 1, size[0] * size[1], 16)
                recorder.record("cross", size, queries, text.context[:, None], 1.0)
            return noisy

    backbone, latents = Pyramid(), torch.zeros(2, 4, 64, 32)
    for sizes, expected in (
        (((64, 32), (32, 16), (16, 8), (8, 4)), (16, 8)),
        (((64, 32), (32, 16)), (32, 16)),
        (((8, 4), (32, 16)), (32, 16)),
    ):
        backbone.sizes = sizes
        assert alignment_size(backbone, latents) == expected
    backbone.sizes = ()
    with pytest.raises(IceError, match="shows no cross-attention: set alignment_weight to 0"):
        alignment_size(backbone, latents)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": ()}, "no axes"),
        ({"axes": ("",)}, "'' is not one plain word"),
        ({"axes": ("color", "color")}, "'color' is named twice"),
        ({"axes": ("object",)}, "'object' is the name of another"),
        ({"axes": ("two words",)}, "'two words' is not one plain word"),
        ({"steps": 1}, "steps is 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"batch": 0}, "batch is 0"),
        ({"alignment_weight": -1.0}, "alignment_weight is -1"),
        ({"flip_probability": 1.5}, "flip_probability is 1.5"),
        ({"templates": ("a photo",)}, "'a photo' needs"),
        ({"templates": ()}, "no templates"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(IceError, match=message):
        TrainingConfig(**change)  # type: ignore[arg-type]


def test_an_axis_of_several_pieces_is_refused_with_their_number() -> None:
    class Splitting(FakeBackbone):
        def word_rows(self, text: str) -> dict[str, Tensor]:
            return super().word_rows(text.replace("iridescence", "irid esc ence"))

    with pytest.raises(IceError, match="'iridescence' is 3 pieces to the tokenizer of clip_l"):
        train(Splitting(), scene(), TrainingConfig(axes=("color", "iridescence")))


def test_concepts_that_cannot_be_learned_are_refused_before_any_work() -> None:
    good = scene()
    ball, cube = good.concepts
    empty = dataclasses.replace(ball, mask=torch.zeros_like(ball.mask))
    small = dataclasses.replace(ball, mask=ball.mask[:32])
    for concepts, message in (
        ((), "nothing to learn"),
        ((empty, cube), "mask of 'ball-0' is empty"),
        ((small,), "mask of 'ball-0' is 64 x 32, the picture 64 x 64"),
        ((ball, dataclasses.replace(cube, key="ball-0")), "two objects have the key 'ball-0'"),
        ((dataclasses.replace(ball, label=" "),), "'ball-0' has no label"),
    ):
        with pytest.raises(IceError, match=message):
            train(FakeBackbone(), dataclasses.replace(good, concepts=concepts), SHORT)
    with pytest.raises(IceError, match="60 x 64, but fake takes sides that are multiples of 8"):
        train(FakeBackbone(), dataclasses.replace(good, image=good.image[..., :60]), SHORT)


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
            train(backbone, concepts, config, resume)


def test_snapshots_may_be_taken_at_another_pace_after_resuming() -> None:
    config = dataclasses.replace(SHORT, snapshot_every=1)
    assert same(run(config=config, resume=half_way())[1], run()[1])


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = half_way().save(tmp_path / "state.safetensors")
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


def test_a_crash_while_saving_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = half_way().save(tmp_path / "state.safetensors")
    before = path.read_bytes()

    def crash(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(IceError):
        half_way().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_plain_inversion_learns_one_token_of_the_whole_picture() -> None:
    backbone = FakeBackbone()
    before = {name: weight.clone() for name, weight in backbone.weights.items()}
    *steps, last = invert(
        backbone, scene().image, "toy ball", InversionConfig(steps=300, learning_rate=6.5e-4)
    )
    assert isinstance(last, Inverted)
    totals = torch.tensor([s.losses["total"] for s in steps if isinstance(s, StepDone)])
    assert len(totals) == 300
    assert totals[-100:].mean() < totals[:100].mean()
    assert last.token.rows["clip_l"].shape == (1, 16)
    assert all(torch.equal(backbone.weights[name], before[name]) for name in before)
    *_, again = invert(backbone, scene().image, "toy ball", InversionConfig(steps=300, learning_rate=6.5e-4))
    assert isinstance(again, Inverted)
    assert torch.equal(again.token.rows["clip_l"], last.token.rows["clip_l"])


def test_plain_inversion_refuses_what_it_cannot_do() -> None:
    image = scene().image
    with pytest.raises(IceError, match="60 x 64"):
        invert(FakeBackbone(), image[..., :60], "ball")
    with pytest.raises(IceError, match="label is empty"):
        invert(FakeBackbone(), image, " ")
    with pytest.raises(IceError, match="steps is 0"):
        InversionConfig(steps=0)
    with pytest.raises(IceError, match="diverged at step 2 of 5"):
        list(invert(Breaking(1), image, "ball", InversionConfig(steps=5)))


def test_a_step_is_as_long_as_the_model_s_words_make_it() -> None:
    class Wider(FakeBackbone):
        def word_rows(self, text: str) -> dict[str, torch.Tensor]:
            return {name: 3 * rows for name, rows in super().word_rows(text).items()}

    plain, wider = row_sizes(FakeBackbone()), row_sizes(Wider())
    assert wider["clip_l"] == pytest.approx(3 * plain["clip_l"])
    token = trainable(Token("t", {"clip_l": torch.ones(1, 16)}), torch.device("cpu"))
    optimizer = adamw([token], 1e-3, 0.01, {"clip_l": 3.0})
    token.rows["clip_l"].grad = torch.full((1, 16), 0.5)
    optimizer.step()
    # Adam's first step has the length of the rate; decay takes off what it would at size 1.
    torch.testing.assert_close(token.rows["clip_l"].detach(), torch.full((1, 16), 1 - 1e-5 - 3e-3))


def test_words_of_no_size_leave_the_rate_as_it_is() -> None:
    class Silent(FakeBackbone):
        def word_rows(self, text: str) -> dict[str, torch.Tensor]:
            return {name: 0 * rows for name, rows in super().word_rows(text).items()}

    assert row_sizes(Silent()) == {"clip_l": 1.0}
