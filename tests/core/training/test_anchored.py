"""The anchored method: where tokens start, which way they can go, and which state is kept."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fakes import FakeBackbone
from training_runs import run, scene

from ice_core.concepts import Candidate, ConceptSet, Reading, Readings, said
from ice_core.errors import IceError
from ice_core.model.backbone import Prompt, Token
from ice_core.model.noising import draw_noise, fill
from ice_core.training import AnchoredConfig, Snapshot, TrainingConfig, train
from ice_core.training.anchored import AnchoredSession, begin_anchored
from ice_core.training.mixture import mixture_of, spans
from ice_core.training.scene import prepare
from ice_core.training.slots import slots_of

COLORS = (Candidate("red", 0.6), Candidate("pink", 0.3), Candidate("dark red", 0.1))
READINGS: Readings = {
    "ball-0": {
        "color": Reading("color", COLORS, "clip", True, ("pink", "dark red")),
        "material": said("material", "metal"),
    }
}
CONFIG = TrainingConfig(
    ("material", "color"), steps=12, snapshot_every=100, anchored=AnchoredConfig(batch=2, evaluations=4)
)


def rows(text: str) -> torch.Tensor:
    return FakeBackbone().word_rows(text)["clip_l"]


def test_a_mixture_keeps_the_words_norm_and_leaves_out_words_of_other_lengths() -> None:
    mixture = mixture_of(
        FakeBackbone(), "c", ["red", "pink", "dark red"], [0.6, 0.3, 0.1], spans(FakeBackbone(), [])
    )
    assert mixture.words["clip_l"].shape == (2, 1, 16)
    token = mixture.token(mixture.start, {"clip_l": torch.zeros(1, 16)})
    share = torch.tensor([0.6, 0.3]) / 0.9
    both = torch.cat([rows("red"), rows("pink")])
    expected = F.normalize(share @ both, dim=0) * (share @ both.norm(dim=-1))
    torch.testing.assert_close(token.rows["clip_l"][0], expected)


def test_a_word_of_several_pieces_keeps_them() -> None:
    mixture = mixture_of(FakeBackbone(), "c", ["dark red", "red"], [0.9, 0.1], spans(FakeBackbone(), []))
    token = mixture.token(mixture.start, {"clip_l": torch.zeros(2, 16)})
    torch.testing.assert_close(token.rows["clip_l"], rows("dark red"))


def test_residuals_keep_out_of_the_other_axes_words_and_leave_norms_alone() -> None:
    backbone = FakeBackbone()
    forbidden = spans(backbone, [["metal", "glass", "wood"], ["ball"]])
    assert forbidden["clip_l"].shape == (2, 16)
    mixture = mixture_of(backbone, "c", ["red"], [1.0], forbidden)
    residual = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    moved = mixture.token(mixture.start, {"clip_l": residual}).rows["clip_l"]
    assert float(moved.norm()) == pytest.approx(float(rows("red").norm()), rel=1e-5)
    table = F.normalize(torch.cat([rows("metal"), rows("glass"), rows("wood")]), dim=-1)
    for difference in (table[0] - table[1], table[1] - table[2]):
        torch.testing.assert_close(
            mixture.allowed("clip_l", residual) @ difference, torch.zeros(1), atol=1e-5, rtol=0
        )


def test_the_prompt_is_as_people_write_it() -> None:
    slots = slots_of(FakeBackbone(), "ball-0", "ball", CONFIG, READINGS)
    assert [slot.mixture.name for slot in slots] == [
        "ball-0.instance", "ball-0.color", "ball-0.material", "ball-0.object"
    ]  # fmt: skip
    assert [slot.word for slot in slots] == [None, "red", "metal", "ball"]
    without = dataclasses.replace(CONFIG, anchored=dataclasses.replace(CONFIG.anchored, instance=False))
    assert [s.word for s in slots_of(FakeBackbone(), "ball-0", "ball", without, READINGS)] == [
        "red",
        "metal",
        "ball",
    ]


def test_with_nothing_to_learn_the_words_come_back() -> None:
    still = AnchoredConfig(batch=1, residual_rate=0, mixture_rate=0, instance=False)
    readings = {"ball-0": {"color": said("color", "red"), "material": said("material", "metal")}}
    config = dataclasses.replace(CONFIG, anchored=still)
    ball = run(scene("ball"), config, readings=readings)[1].concepts[0]
    for token, word in (
        (ball.object, "ball"),
        (ball.intrinsics["color"], "red"),
        (ball.intrinsics["material"], "metal"),
    ):
        torch.testing.assert_close(token.rows["clip_l"], rows(word))


def test_only_mixtures_move_in_the_first_phase() -> None:
    config = dataclasses.replace(
        CONFIG, snapshot_every=1, anchored=dataclasses.replace(CONFIG.anchored, mixing=0.5)
    )
    states = [
        e.state for e in train(FakeBackbone(), scene("ball"), config, READINGS) if isinstance(e, Snapshot)
    ]
    residuals = [
        sum(float(v.abs().sum()) for k, v in s.extra.items() if k[:7] == "values/" and k[-7:] == "/clip_l")
        for s in states
    ]
    assert [r > 0 for r in residuals[:6]] == [False] * 6
    assert residuals[-1] > 0
    assert not torch.equal(
        states[5].extra["values/ball-0.color/weights"], states[0].extra["values/ball-0.color/weights"]
    )


def test_the_loss_of_a_step_is_the_masked_error_of_the_prompt_that_was_drawn() -> None:
    """The first step without chance in the prompt, written down once more."""
    backbone, concepts = FakeBackbone(), scene("ball")
    anchored = AnchoredConfig(batch=3, substitution=0, instance=False, evaluations=0)
    config = dataclasses.replace(
        CONFIG, anchored=anchored, templates=("a photo of a {}",), flip_probability=0
    )
    step = run(concepts, config, readings=READINGS)[0][0]
    rng = torch.Generator().manual_seed(0)
    torch.rand(3, generator=rng)
    places = (torch.arange(3) + torch.rand(3, generator=rng)) / 3
    spread = anchored.latest - anchored.earliest
    timesteps = ((anchored.earliest + spread * places) * 999).round().long()
    noise = draw_noise((3, 4, 8, 8), 0, rng)
    signal = backbone.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    latent = backbone.encode_image(concepts.image[None])
    state = begin_anchored(backbone, concepts, config, READINGS)
    parts: list[str | Token] = [state.tokens[f"ball-0.{k}"] for k in ("color", "material", "object")]
    text = backbone.encode_prompts([fill("a photo of a {}", parts)] * 3)
    output = backbone.predict(signal.sqrt() * latent + (1 - signal).sqrt() * noise, timesteps, text)
    mask = prepare(backbone, concepts, config).subjects[0].mask[:1].expand_as(output)
    expected = float((mask * (output - noise).square()).sum() / mask.sum())
    assert step.losses["denoising"] == pytest.approx(expected, rel=1e-4)
    assert step.losses["total"] == pytest.approx(expected, rel=1e-4)


def test_the_best_state_is_kept_and_it_is_never_worse_than_the_words() -> None:
    wild = dataclasses.replace(CONFIG.anchored, mixture_rate=20.0, residual_rate=20.0, evaluate_every=1)
    config = dataclasses.replace(CONFIG, anchored=wild)
    backbone, concepts = FakeBackbone(), scene("ball")
    with torch.enable_grad():
        state = begin_anchored(backbone, concepts, config, READINGS)
        session = AnchoredSession(backbone, prepare(backbone, concepts, config), config, state)
        first = float(session.record["ball-0"][0])
        for _ in range(8):
            session.advance()
        assert float(session.record["ball-0"][0]) <= first
        kept = session.state()
        session.average = {k: v.clone() for k, v in session.best.items()}
        session.record["ball-0"][0] = float("inf")
        best = float(kept.extra["record/ball-0"][0])
        session._compare()
        assert float(session.record["ball-0"][0]) == pytest.approx(best, rel=1e-5)


def test_the_other_objects_are_named_beside_it_as_far_as_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fakes.CONTEXT", 77)
    found = scene("ball", "cube", "cone")
    readings = {**READINGS, "cube-1": {"color": said("color", "blue")}}

    def beside(config: TrainingConfig, concepts: ConceptSet = found) -> list[str]:
        state = begin_anchored(FakeBackbone(), concepts, config, readings)
        session = AnchoredSession(FakeBackbone(), prepare(FakeBackbone(), concepts, config), config, state)
        parts = session._said("ball-0", state.tokens)
        assert parts[len(session.slots["ball-0"]) :] == session.beside["ball-0"]
        return session.beside["ball-0"]

    alone = dataclasses.replace(CONFIG.anchored, beside=False, substitution=0)
    named = dataclasses.replace(CONFIG.anchored, substitution=0)
    with torch.enable_grad():
        assert beside(dataclasses.replace(CONFIG, anchored=alone)) == []
        said_of = beside(dataclasses.replace(CONFIG, anchored=named))
        crowd = scene("ball", *("cube",) * 40, size=(64, 656))
        many = beside(dataclasses.replace(CONFIG, anchored=named), crowd)
        wordy = dataclasses.replace(CONFIG, anchored=named, templates=("photo " * 30 + "{}",))
        fewer = beside(wordy, crowd)
    assert said_of == ["and a", "cone", "and a", "blue", "cube"], "the largest first"
    assert 0 < len(fewer) < len(many) < 40 * 2, "as far as there is room, also in a long template"


def test_rates_fall_to_nothing_along_half_a_cosine_also_after_a_stop() -> None:
    backbone, concepts = FakeBackbone(), scene("ball")
    with torch.enable_grad():
        state = begin_anchored(backbone, concepts, CONFIG, READINGS)
        session = AnchoredSession(backbone, prepare(backbone, concepts, CONFIG), CONFIG, state)
        rates = []
        for step in range(CONFIG.steps):
            if step == 6:
                session = AnchoredSession(
                    backbone, prepare(backbone, concepts, CONFIG), CONFIG, session.state()
                )
            session.advance()
            rates.append(session.optimizer.param_groups[0]["lr"] / CONFIG.anchored.mixture_rate)
    assert rates == pytest.approx([(1 + math.cos(math.pi * n / 12)) / 2 for n in range(12)])


def test_a_budget_ends_it() -> None:
    hurried = dataclasses.replace(CONFIG.anchored, budget=1e-9)
    steps, _ = run(scene("ball"), dataclasses.replace(CONFIG, anchored=hurried), readings=READINGS)
    assert len(steps) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch is 0"),
        ({"keep_close": -1.0}, "keep_close is -1"),
        ({"mixing": 1.5}, "mixing is 1.5: it must be in 0..1"),
        ({"budget": float("nan")}, "budget is nan"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(IceError, match=message):
        AnchoredConfig(**change)  # type: ignore[arg-type]


def test_prompts_with_its_tokens_are_prompts() -> None:
    ball = run(scene("ball"), CONFIG, readings=READINGS)[1].concepts[0]
    features = FakeBackbone().encode_prompts([Prompt(("a photo of a", *ball.properties, ball.object))])
    assert torch.isfinite(features.context).all()


def test_to_save_memory_objects_go_through_the_denoiser_one_after_the_other() -> None:
    class Frugal(FakeBackbone):
        saves_memory = True

        def __init__(self) -> None:
            super().__init__()
            self.sizes: list[int] = []

        def predict(self, noisy: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            self.sizes.append(len(noisy))
            return super().predict(noisy, *args, **kwargs)

    found, frugal = scene("ball", "cube"), Frugal()
    (steps, together), (others, apart) = (run(found, CONFIG, model) for model in (FakeBackbone(), frugal))
    assert set(frugal.sizes) == {2, 4}
    for one, other in zip(steps, others, strict=True):
        assert other.losses == pytest.approx(one.losses, rel=1e-4)
    for name, token in together.tokens.items():
        torch.testing.assert_close(apart.tokens[name].rows, token.rows)
