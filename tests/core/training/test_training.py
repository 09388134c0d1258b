"""Stage Two: what a step does and what it leaves alone."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Sequence

import pytest
import torch
from fakes import FakeBackbone
from torch import Tensor
from training_runs import SHORT, Breaking, run, same, scene

from ice_core.errors import IceError
from ice_core.model.attention import AttentionRecorder
from ice_core.model.backbone import Prompt, TextFeatures
from ice_core.model.lora import Lora
from ice_core.training import (
    Finished,
    Snapshot,
    TrainingConfig,
    TrainingState,
    learned_so_far,
    train,
)
from ice_core.training.scene import alignment_size


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
        steps=400, learning_rate=6.5e-4, batch=4, alignment_iterations=5, snapshot_every=400, method="paper"
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

        def encode_prompts(
            self, prompts: Sequence[Prompt], contexts: int | None = None, lora: Lora | None = None
        ) -> TextFeatures:
            self.texts += torch.is_grad_enabled()
            return super().encode_prompts(prompts, contexts)

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
