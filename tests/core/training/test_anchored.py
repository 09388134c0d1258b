"""The anchored method: where tokens start, which way they can go, and which state is kept."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
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
from ice_core.training.least_squares import NormalEquations, moved
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
    still = AnchoredConfig(batch=1, residual_rate=0, instance=False)
    readings = {"ball-0": {"color": said("color", "red"), "material": said("material", "metal")}}
    config = dataclasses.replace(CONFIG, anchored=still)
    ball = run(scene("ball"), config, readings=readings)[1].concepts[0]
    for token, word in (
        (ball.object, "ball"),
        (ball.intrinsics["color"], "red"),
        (ball.intrinsics["material"], "metal"),
    ):
        torch.testing.assert_close(token.rows["clip_l"], rows(word))


def test_mixtures_move_in_the_first_phase_and_residuals_in_the_second() -> None:
    config = dataclasses.replace(CONFIG, snapshot_every=1)
    states = [
        e.state for e in train(FakeBackbone(), scene("ball"), config, READINGS) if isinstance(e, Snapshot)
    ]
    residuals = [
        sum(float(v.abs().sum()) for k, v in s.extra.items() if k[:7] == "values/" and k[-7:] == "/clip_l")
        for s in states
    ]
    assert [r > 0 for r in residuals] == [False] * 6 + [True] * 6
    weights = [s.extra["values/ball-0.color/weights"] for s in states]
    moves = [not torch.equal(one, other) for one, other in itertools.pairwise(weights)]
    assert [step + 2 for step, moved in enumerate(moves) if moved] == [3, 6]
    for one in weights:
        assert float(one.sum()) == pytest.approx(1, abs=1e-5)


DAMPING = 0.3


class FirstStep:
    """The first of two steps of a training, and its copies computed here once more."""

    def __init__(self, readings: Readings) -> None:
        self.backbone, concepts = FakeBackbone(), scene("ball")
        anchored = AnchoredConfig(batch=3, damping=DAMPING, evaluations=0)
        config = dataclasses.replace(
            CONFIG,
            steps=2,
            anchored=anchored,
            templates=("a photo of a {}",),
            flip_probability=0,
            snapshot_every=1,
        )
        events = list(train(self.backbone, concepts, config, readings))
        self.state = next(e.state for e in events if isinstance(e, Snapshot))
        assert self.state.step == 1
        rng = torch.Generator().manual_seed(0)
        torch.rand(3, generator=rng)
        places = (torch.arange(3) + torch.rand(3, generator=rng)) / 3
        shares = anchored.earliest + (anchored.latest - anchored.earliest) * places
        self.timesteps = (shares * 999).round().long()
        self.noise = draw_noise((3, 4, 8, 8), 0, rng)
        signal = self.backbone.alphas_cumprod[self.timesteps].view(-1, 1, 1, 1)
        latent = self.backbone.encode_image(concepts.image[None])
        self.noisy = signal.sqrt() * latent + (1 - signal).sqrt() * self.noise
        self.mask = prepare(self.backbone, concepts, config).subjects[0].mask[:1].expand(3, 4, 8, 8).sqrt()
        self.slots = slots_of(self.backbone, "ball-0", "ball", config, readings)

    def output(self, place: int, weights: torch.Tensor) -> torch.Tensor:
        """What is predicted with other weights in one place of the prompt."""
        mixture = self.slots[place].mixture
        parts = [slot.word for slot in self.slots]
        said = [*parts[1:place], mixture.token(weights, mixture.still()), *parts[place + 1 :]]
        prompts = [fill("a photo of a {}", said)] * 3
        return self.backbone.predict(self.noisy, self.timesteps, self.backbone.encode_prompts(prompts))

    def solved(self, changes: list[torch.Tensor], plain: torch.Tensor) -> np.ndarray:
        """Shares of the changes, by NumPy."""
        table = np.stack([(self.mask * change).numpy().ravel() for change in changes], -1).astype(np.float64)
        wanted = (self.mask * (self.noise - plain)).numpy().ravel().astype(np.float64)
        weight = np.sqrt(DAMPING * (table**2).sum(0).mean())
        damped = np.concatenate([table, weight * np.eye(len(changes))])
        share, *_ = np.linalg.lstsq(damped, np.append(wanted, [0] * len(changes)), rcond=None)
        return share * min(1, 0.5 / np.abs(share).sum())


def test_the_first_solution_is_that_of_the_least_squares_problem() -> None:
    first, start = FirstStep(READINGS), torch.tensor([0.6, 0.3]) / 0.9
    plain = first.output(1, start)
    changes = [(first.output(1, start + 0.3 * (word - start)) - plain) / 0.3 for word in torch.eye(2)]
    share = first.solved(changes, plain)
    expected = start.numpy() + share - start.numpy() * share.sum()
    np.testing.assert_allclose(first.state.extra["values/ball-0.color/weights"], expected, atol=1e-4)


def test_a_degree_is_solved_for_between_two_opposite_words() -> None:
    metal = dataclasses.replace(said("material", "metal"), degrees=(("shiny", "matte"),))
    first = FirstStep({"ball-0": {"color": said("color", "red"), "material": metal}})
    start, shiny, matte = torch.eye(3)
    torch.testing.assert_close(first.slots[2].mixture.start, start)
    plain = first.output(2, start)
    low, high = (first.output(2, start + 0.3 * (word - start)) for word in (shiny, matte))
    (share,) = first.solved([(high - low) / 0.6], plain)
    expected = [1 - abs(share), max(-share, 0), max(share, 0)]
    np.testing.assert_allclose(first.state.extra["values/ball-0.material/weights"], expected, atol=1e-4)


def test_of_a_pair_of_opposites_one_counts_and_never_more_than_the_word() -> None:
    backbone = FakeBackbone()
    degrees = [("very shiny", "dull"), ("shiny", "matte")]
    mixture = mixture_of(backbone, "m", ["metal", "glass"], [0.9, 0.1], spans(backbone, []), 1, degrees)
    assert mixture.opposites == ((2, 3),)
    assert mixture.start.tolist() == pytest.approx([0.9, 0.1, 0, 0])
    one = mixture.one_of_each_pair(torch.tensor([0.5, 0.1, 0.1, 0.3]))
    assert one.tolist() == pytest.approx([0.7, 0.1, 0, 0.2])
    most = mixture.one_of_each_pair(torch.tensor([0.1, 0.1, 0.8, 0.0]))
    assert most.tolist() == pytest.approx([0.4, 0.1, 0.5, 0])


def test_weights_that_a_picture_was_made_with_are_found() -> None:
    """The error is what a mixture further on would explain: that is where the solution goes."""
    generator = torch.Generator().manual_seed(0)
    changes = [torch.randn(4, 2, 3, 3, generator=generator) for _ in range(3)]
    true = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    error = sum((float(t) * c for t, c in zip(true, changes, strict=True)), torch.zeros(4, 2, 3, 3))
    weight = torch.rand(4, 1, 3, 3, generator=generator)
    halves = [
        NormalEquations.of([c[part] for c in changes], error[part], weight[part])
        for part in (slice(0, 1), slice(1, 4))
    ]
    both = NormalEquations.empty(3) + halves[0] + halves[1]
    torch.testing.assert_close(both.solution(0), true, atol=1e-5, rtol=0)
    assert float(both.solution(1e6).abs().max()) < 1e-5
    assert NormalEquations.empty(3).solution(0.1).tolist() == [0, 0, 0]
    went = moved(torch.tensor([0.8, 0.2, 0.0]), true / 2)
    torch.testing.assert_close(went, torch.tensor([0.87, 0.08, 0.05]))
    far = moved(torch.tensor([0.8, 0.2, 0.0]), true * 10)
    half_a_way = moved(torch.tensor([0.8, 0.2, 0.0]), true / 0.6 / 2)
    torch.testing.assert_close(far, half_a_way)


def test_the_loss_of_a_step_is_the_masked_error_of_the_prompt_that_was_drawn() -> None:
    """The first step without chance in the prompt, written down once more."""
    backbone, concepts = FakeBackbone(), scene("ball")
    anchored = AnchoredConfig(batch=3, solving=0, substitution=0, instance=False, evaluations=0)
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


def test_the_best_state_is_kept_and_it_is_never_worse_than_the_solved_mixtures() -> None:
    wild = dataclasses.replace(CONFIG.anchored, solving=3, residual_rate=20.0, evaluate_every=1)
    config = dataclasses.replace(CONFIG, anchored=wild)
    backbone, concepts = FakeBackbone(), scene("ball")
    with torch.enable_grad():
        state = begin_anchored(backbone, concepts, config, READINGS)
        session = AnchoredSession(backbone, prepare(backbone, concepts, config), config, state)
        for _ in range(config.switch):
            session.advance()
        first = float(session.record["ball-0"][0])
        assert math.isfinite(first)
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
        first, rates = session.rates[0], []
        for step in range(CONFIG.steps):
            if step in (4, 8):
                session = AnchoredSession(
                    backbone, prepare(backbone, concepts, CONFIG), CONFIG, session.state()
                )
            session.advance()
            rates.append(session.optimizer.param_groups[0]["lr"] / first)
    assert CONFIG.switch == 6
    assert rates[6:] == pytest.approx([(1 + math.cos(math.pi * n / 6)) / 2 for n in range(6)])


def test_a_longer_training_learns_residuals_longer_and_a_short_one_is_halved() -> None:
    switches = [TrainingConfig(steps=steps).switch for steps in (2, 5, 16, 60)]
    assert switches == [1, 2, 8, 8]


def test_a_budget_ends_it() -> None:
    hurried = dataclasses.replace(CONFIG.anchored, budget=1e-9)
    steps, learned = run(scene("ball"), dataclasses.replace(CONFIG, anchored=hurried), readings=READINGS)
    assert len(steps) == 1
    words = begin_anchored(FakeBackbone(), scene("ball"), CONFIG, READINGS).tokens["ball-0.color"]
    assert not torch.equal(learned.concepts[0].intrinsics["color"].rows["clip_l"], words.rows["clip_l"]), (
        "what was looked at by then is made use of"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch is 0"),
        ({"keep_close": -1.0}, "keep_close is -1"),
        ({"damping": -0.1}, "damping is -0.1: it must be 0 or more"),
        ({"solving": -1}, "solving is -1: it must be 0 or more"),
        ({"substitution": 1.5}, "substitution is 1.5: it must be in 0..1"),
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
