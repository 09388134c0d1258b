"""Refinement on a fake backbone: what is learned, what stays, and how it stops and goes on."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path

import pytest
import torch
from fakes import TEXT_LAYER, FakeBackbone
from loras import same
from safetensors.torch import load_file, save_file
from torch import Tensor
from training_runs import Breaking, scene

from ice_core.concepts import LearnedConcept, LearnedConcepts
from ice_core.errors import IceError
from ice_core.model.attention import AttentionRecorder
from ice_core.model.backbone import Prompt, TextFeatures, Token, all_lora_targets
from ice_core.model.lora import Lora
from ice_core.model.noising import noisy_and_target
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.training import (
    Finished,
    PriorDrawn,
    Refined,
    RefinementConfig,
    RefinementSnapshot,
    RefinementState,
    StepDone,
    TrainingConfig,
    refine,
    train,
)

SHORT = RefinementConfig(steps=6, rank=2, learning_rate=1e-2, prior_pictures=3, snapshot_every=2)


@pytest.fixture(scope="module")
def learned() -> LearnedConcepts:
    config = TrainingConfig(steps=4, alignment_weight=0, method="paper")
    *_, last = train(FakeBackbone(), scene(), config)
    assert isinstance(last, Finished)
    return last.learned


def run(
    learned: LearnedConcepts,
    config: RefinementConfig = SHORT,
    backbone: FakeBackbone | None = None,
    resume: RefinementState | None = None,
) -> tuple[list[StepDone], Lora]:
    events = list(refine(backbone or FakeBackbone(), scene(), learned, config, resume))
    assert isinstance(events[-1], Refined)
    return [event for event in events if isinstance(event, StepDone)], events[-1].lora


def state_after(learned: LearnedConcepts, step: int) -> RefinementState:
    events = refine(FakeBackbone(), scene(), learned, SHORT)
    return next(e.state for e in events if isinstance(e, RefinementSnapshot) and e.state.step == step)


def test_events_come_in_order(learned: LearnedConcepts) -> None:
    events = list(refine(FakeBackbone(), scene(), learned, SHORT))
    names = [type(event).__name__ for event in events]
    steps = ["StepDone"] * 2 + ["RefinementSnapshot"]
    assert names == ["PriorDrawn"] * 3 + ["RefinementSnapshot"] + steps * 3 + ["Refined"]
    assert [(e.done, e.total) for e in events if isinstance(e, PriorDrawn)] == [(1, 3), (2, 3), (3, 3)]
    done = [e for e in events if isinstance(e, StepDone)]
    assert [(e.step, e.steps, e.phase) for e in done] == [(i, 6, 3) for i in range(1, 7)]
    assert set(done[0].losses) == {"total", "denoising", "prior"}


def test_the_total_is_the_weighted_sum(learned: LearnedConcepts) -> None:
    for step in run(learned, dataclasses.replace(SHORT, prior_weight=0.3))[0]:
        expected = step.losses["denoising"] + 0.3 * step.losses["prior"]
        assert step.losses["total"] == pytest.approx(expected, rel=1e-6)


def test_the_lora_is_learned_and_nothing_else(learned: LearnedConcepts) -> None:
    backbone = FakeBackbone()
    weights = {name: weight.clone() for name, weight in backbone.weights.items()}
    tokens = {name: token.rows["clip_l"].clone() for name, token in learned.tokens.items()}
    lora = run(learned, backbone=backbone)[1]
    lora.check(backbone.lora_targets, backbone.name)
    assert lora.down.keys() == backbone.lora_targets.keys()
    assert (lora.rank, lora.alpha) == (2, 2.0)
    assert all(up.any() for up in lora.up.values())
    assert not any(v.requires_grad for v in (*lora.down.values(), *lora.up.values()))
    assert all(torch.equal(backbone.weights[k], v) for k, v in weights.items())
    assert all(torch.equal(learned.tokens[k].rows["clip_l"], v) for k, v in tokens.items())


def test_the_loss_falls(learned: LearnedConcepts) -> None:
    config = RefinementConfig(steps=120, learning_rate=3e-2, prior_weight=0, snapshot_every=120)
    totals = torch.tensor([step.losses["total"] for step in run(learned, config)[0]])
    assert totals[-40:].mean() < totals[:40].mean()


def test_the_prior_keeps_plain_labels_as_they_were(learned: LearnedConcepts) -> None:
    """On the pictures that the model drew itself, a LoRA learned with them errs less than one without."""
    prior, backbone = state_after(learned, 0).prior[:1], FakeBackbone()
    times = torch.tensor([100, 400, 700])
    noise = torch.randn(3, *prior.shape[1:], generator=torch.Generator().manual_seed(8))
    noisy, target = noisy_and_target(prior, noise, backbone.alphas_cumprod[times], "epsilon")
    text = backbone.encode_prompts([Prompt(("a photo of a ball",))]).repeat(3)
    errors = []
    for weight in (0.0, 10.0):
        config = RefinementConfig(
            steps=60, learning_rate=2e-2, prior_weight=weight, prior_pictures=2, snapshot_every=60
        )
        output = backbone.predict(noisy, times, text, lora=run(learned, config)[1])
        errors.append((output - target).square().mean().item())
    assert errors[1] < errors[0]


def test_without_a_prior_no_picture_is_drawn(learned: LearnedConcepts) -> None:
    events = list(refine(FakeBackbone(), scene(), learned, dataclasses.replace(SHORT, prior_weight=0)))
    assert not any(isinstance(event, PriorDrawn) for event in events)
    assert set(next(e for e in events if isinstance(e, StepDone)).losses) == {"total", "denoising"}


def test_prior_pictures_take_the_labels_in_turn(learned: LearnedConcepts) -> None:
    class Watching(FakeBackbone):
        def encode_prompts(self, prompts, contexts=None, lora=None):  # type: ignore[no-untyped-def]
            self.seen = [
                *getattr(self, "seen", []),
                *(p.text for p in prompts if not torch.is_grad_enabled()),
            ]
            return super().encode_prompts(prompts, contexts)

    backbone = Watching()
    events = refine(backbone, scene(), learned, SHORT)
    next(event for event in events if isinstance(event, RefinementSnapshot))
    drawn = [text for text in backbone.seen if text]
    assert drawn == ["a photo of a ball", "a photo of a cube", "a photo of a ball"]


def test_prompts_hold_the_object_and_all_its_properties_frozen(learned: LearnedConcepts) -> None:
    class Watching(FakeBackbone):
        seen: list[list[str]]

        def encode_prompts(self, prompts, contexts=None, lora=None):  # type: ignore[no-untyped-def]
            tokens = [part for p in prompts for part in p.parts if isinstance(part, Token)]
            assert not any(token.rows["clip_l"].requires_grad for token in tokens)
            if tokens:
                self.seen.append([token.name.split(".")[1] for token in tokens])
            return super().encode_prompts(prompts, contexts)

        def predict(
            self,
            noisy: Tensor,
            timesteps: Tensor,
            text: TextFeatures,
            recorder: AttentionRecorder | None = None,
            lora: Lora | None = None,
        ) -> Tensor:
            assert (lora is not None) == torch.is_grad_enabled()
            assert recorder is None
            return super().predict(noisy, timesteps, text, recorder, lora)

    backbone = Watching()
    backbone.seen = []
    run(learned, backbone=backbone)
    assert backbone.seen == [["object", "color", "material", "pattern"]] * 6


def test_same_seed_same_result_and_another_seed_another(learned: LearnedConcepts) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = run(learned)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = run(learned), run(dataclasses.replace(learned, seed=1))
    assert first[0] == again[0]
    assert same(first[1], again[1])
    assert not same(first[1], other[1])


@pytest.mark.parametrize("stop", [0, 2, 4, 6])
def test_a_resumed_refinement_gives_the_numbers_of_a_straight_one(
    learned: LearnedConcepts, tmp_path: Path, stop: int
) -> None:
    straight = run(learned)
    (tmp_path / "state.safetensors").write_bytes(state_after(learned, stop).to_bytes())
    loaded = RefinementState.load(tmp_path / "state.safetensors")
    assert (loaded.config, loaded.step) == (SHORT, stop)
    resumed = run(learned, resume=loaded)
    assert resumed[0] == straight[0][stop:]
    assert same(resumed[1], straight[1])


def test_cancelling_leaves_modes_and_memory_as_they_were(learned: LearnedConcepts) -> None:
    gc.collect()
    before = sum(issubclass(type(o), Tensor) and o.requires_grad for o in gc.get_objects())
    with torch.no_grad():
        events = refine(FakeBackbone(), scene(), learned, SHORT)
        for event in events:
            assert not torch.is_grad_enabled()
            if isinstance(event, StepDone):
                break
        events.close()
    del events
    gc.collect()
    assert sum(issubclass(type(o), Tensor) and o.requires_grad for o in gc.get_objects()) == before


def test_it_works_inside_inference_mode(learned: LearnedConcepts) -> None:
    def copied(concept: LearnedConcept) -> LearnedConcept:
        intrinsics = {axis: token.detach() for axis, token in concept.intrinsics.items()}
        return dataclasses.replace(concept, object=concept.object.detach(), intrinsics=intrinsics)

    outside, backbone = run(learned)[1], FakeBackbone()
    with torch.inference_mode():
        tokens = dataclasses.replace(learned, concepts=tuple(copied(c) for c in learned.concepts))
        lora = run(tokens, backbone=backbone)[1]
        assert torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()
    assert not any(v.is_inference() for v in lora.down.values())
    assert same(lora, outside)


def test_velocity_models_are_refined_too(learned: LearnedConcepts) -> None:
    backbone = FakeBackbone()
    backbone.prediction = "v_prediction"
    assert run(learned, backbone=backbone)[0] != run(learned)[0]


@pytest.mark.parametrize("good", [0, 2])
def test_divergence_hands_over_the_last_good_state(learned: LearnedConcepts, good: int) -> None:
    seen: list[object] = []
    with pytest.raises(
        IceError, match=rf"refinement diverged at step {good + 1} of 6: lower its learning rate"
    ):
        seen.extend(refine(Breaking(2 * good), scene(), learned, SHORT))
    last = seen[-1]
    assert isinstance(last, RefinementSnapshot)
    assert last.state.step == good
    assert same(run(learned, resume=last.state)[1], run(learned)[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "steps of the refinement is -1"),
        ({"rank": 0}, "rank of the refinement is 0"),
        ({"alpha": 0.0}, "alpha of the refinement is 0"),
        ({"learning_rate": float("nan")}, "learning_rate of the refinement is nan"),
        ({"prior_weight": -1.0}, "prior_weight of the refinement is -1"),
        ({"prior_pictures": 0}, "prior_pictures of the refinement is 0"),
        ({"flip_probability": 2.0}, "flip_probability of the refinement is 2"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(IceError, match=message):
        RefinementConfig(**change)  # type: ignore[arg-type]


def test_what_cannot_be_refined_is_refused_before_any_work(learned: LearnedConcepts) -> None:
    with pytest.raises(IceError, match="steps of the refinement is 0"):
        refine(FakeBackbone(), scene(), learned, RefinementConfig())
    with pytest.raises(IceError, match="no tokens were learned for ring-0"):
        refine(FakeBackbone(), scene("ring"), learned, SHORT)
    wide = Token("ball-0.object", {"clip_l": torch.zeros(1, 8)})
    ball, cube = learned.concepts
    other = dataclasses.replace(learned, concepts=(dataclasses.replace(ball, object=wide), cube))
    with pytest.raises(IceError, match=r"\(clip_l x 8\), but fake is .* \(clip_l x 16\); load"):
        refine(FakeBackbone(), scene(), other, SHORT)


def test_a_state_of_other_things_is_refused_with_what_differs(learned: LearnedConcepts) -> None:
    state, picture, other = state_after(learned, 2), scene(), FakeBackbone()
    other.fingerprint = "0" * 64
    darker = dataclasses.replace(picture, image=picture.image / 2)
    reseeded = dataclasses.replace(learned, seed=9)
    for backbone, concepts, tokens, config, message in (
        (other, picture, learned, SHORT, r"base model fake \(ffffffffffff\), not fake \(000000000000\)"),
        (FakeBackbone(), darker, learned, SHORT, "of another picture"),
        (FakeBackbone(), picture, reseeded, SHORT, "of other tokens"),
        (FakeBackbone(), picture, learned, dataclasses.replace(SHORT, rank=3), "made with rank 2, not 3"),
    ):
        with pytest.raises(IceError, match=message):
            refine(backbone, concepts, tokens, config, state)
    slower = dataclasses.replace(SHORT, snapshot_every=1)
    assert same(run(learned, slower, resume=state)[1], run(learned)[1])


def test_damaged_and_foreign_states_are_refused(learned: LearnedConcepts, tmp_path: Path) -> None:
    from safetensors import safe_open

    path = tmp_path / "state.safetensors"
    path.write_bytes(state_after(learned, 2).to_bytes())
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    with pytest.raises(IceError, match="cannot read the refinement state"):
        RefinementState.load(tmp_path / "absent.safetensors")
    save_file(tensors, tmp_path / "foreign.safetensors")
    with pytest.raises(IceError, match="is no refinement state"):
        RefinementState.load(tmp_path / "foreign.safetensors")
    up, moment = (next(k for k in tensors if k.startswith(start)) for start in ("up/", "moment/"))
    for content, message in (
        ({k: v for k, v in tensors.items() if k != up}, "only one of its two matrices"),
        ({k: v for k, v in tensors.items() if k != "prior"}, "prior"),
        (tensors | {"generator": torch.zeros(3, dtype=torch.uint8)}, "generator's state has a wrong size"),
        (tensors | {moment: torch.zeros(9, 9)}, r"has shape \(9, 9\)"),
    ):
        save_file(content, tmp_path / "damaged.safetensors", metadata)
        with pytest.raises(IceError, match=message):
            RefinementState.load(tmp_path / "damaged.safetensors")


def test_text_encoders_learn_too_when_asked_for(learned: LearnedConcepts) -> None:
    config = dataclasses.replace(SHORT, text_encoders=True)
    _, refined = run(learned, config)
    assert set(refined.up) == set(all_lora_targets(FakeBackbone()))
    assert refined.up[TEXT_LAYER].abs().max() > 0
    assert TEXT_LAYER not in run(learned)[1].up
    backbone, prompt = FakeBackbone(), Prompt(("a photo of a ball",))
    plain, adapted = (backbone.encode_prompts([prompt], lora=lora).context for lora in (None, refined))
    assert not torch.equal(plain, adapted)


def test_what_is_drawn_depends_on_the_text_encoders_part_too(learned: LearnedConcepts) -> None:
    _, refined = run(learned, dataclasses.replace(SHORT, text_encoders=True, learning_rate=0.1))
    backbone, prompts = FakeBackbone(), [Prompt(("a photo of a ball",))]
    of_unet = refined.part(backbone.lora_targets)
    both, one = (
        sample(backbone, prompts, SamplingConfig(4), torch.Generator().manual_seed(0), lora=lora)
        for lora in (refined, of_unet)
    )
    assert not torch.allclose(both, one)
