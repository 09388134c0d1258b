"""The literal loop of the benchmarks computes what the quick one does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from literal import LiteralFinished, train_literal
from literal.losses import transport
from training_runs import scene

from ice_core.concepts import LearnedConcepts
from ice_core.model.backbone import Prompt
from ice_core.standalone.backbone import StandaloneBackbone
from ice_core.training import Finished, StepDone, TrainingConfig, train
from ice_core.training.losses import alignment_loss
from ice_core.training.transport import cell_distances
from ice_core.world.bundled import load_bundled_backbone

SETTLED = 1000
"""Iterations after which Sinkhorn's come to what Newton's do; the paper's 200 stop before."""


@pytest.fixture(scope="module")
def backbone() -> StandaloneBackbone:
    return load_bundled_backbone()


def both(
    backbone: StandaloneBackbone, labels: tuple[str, ...], config: TrainingConfig
) -> tuple[list[tuple[StepDone, StepDone]], LearnedConcepts, LearnedConcepts]:
    """Pairs of steps, and what each loop learned: the quick one first."""
    concepts = scene(*labels)
    quick = list(train(backbone, concepts, config))
    literal = list(train_literal(backbone, concepts, config, SETTLED))
    last, literal_last = quick[-1], literal[-1]
    assert isinstance(last, Finished)
    assert isinstance(literal_last, LiteralFinished)
    steps, literal_steps = ([e for e in events if isinstance(e, StepDone)] for events in (quick, literal))
    return list(zip(steps, literal_steps, strict=True)), last.learned, literal_last.learned


def assert_same_losses(quick: StepDone, literal: StepDone) -> None:
    assert (literal.step, literal.steps, literal.phase) == (quick.step, quick.steps, quick.phase)
    assert literal.losses.keys() == quick.losses.keys()
    # Elements of the hinge that are 0 but for rounding count as active or not.
    assert literal.losses["triplet"] == pytest.approx(quick.losses["triplet"], abs=2e-5)
    for name, rel in (("denoising", 1e-5), ("alignment", 2e-2), ("total", 1e-5)):
        assert literal.losses[name] == pytest.approx(quick.losses[name], rel=rel)


@pytest.mark.parametrize("seed", [0, 1])
def test_first_losses_are_those_of_the_quick_loop(backbone: StandaloneBackbone, seed: int) -> None:
    steps, *_ = both(backbone, ("ball", "cube"), TrainingConfig(steps=2, seed=seed, method="paper"))
    assert_same_losses(*steps[0])


def test_both_phases_learn_the_same_tokens(backbone: StandaloneBackbone) -> None:
    # One object: a second one would be decayed by the literal loop in steps that do not show it.
    steps, quick, literal = both(backbone, ("ball",), TrainingConfig(steps=2, method="paper"))
    for pair in steps:
        assert_same_losses(*pair)
    assert literal.tokens.keys() == quick.tokens.keys()
    for name, token in quick.tokens.items():
        torch.testing.assert_close(dict(literal.tokens[name].rows), dict(token.rows), atol=2e-5, rtol=0)


def test_the_model_is_as_before_when_closed(backbone: StandaloneBackbone) -> None:
    def answers() -> list[torch.Tensor]:
        text = backbone.encode_prompts([Prompt(("a photo of a ball",))])
        noisy = torch.ones(1, backbone.channels, 16, 16)
        words = backbone.text.state()["embeddings.token_embedding.weight"].clone()
        return [words, text.context, text.pooled, backbone.predict(noisy, torch.tensor([500]), text)]

    before, processors = answers(), backbone.unet.attn_processors
    events = train_literal(backbone, scene("ball"), TrainingConfig(steps=2, method="paper"))
    next(events)
    events.close()
    assert all(torch.equal(now, then) for now, then in zip(answers(), before, strict=True))
    assert backbone.unet.attn_processors == processors
    assert not next(iter(backbone.word_rows("ball").values())).requires_grad


def test_settled_transport_is_the_alignment_loss() -> None:
    coarse = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(coarse, size=(8, 8), mode="bilinear")
    attention = (3 * smooth).flatten().softmax(0).view(8, 8).requires_grad_()
    mask = torch.zeros(8, 8)
    mask[2:5, 1:5] = 1
    literal = transport(attention, mask, 1e-3, SETTLED)
    quick = alignment_loss(attention.flatten()[None], mask.flatten()[None], cell_distances((8, 8)))
    assert literal.item() == pytest.approx(quick.item(), rel=1e-5)
    slopes = [torch.autograd.grad(value, attention)[0] for value in (literal, quick)]
    assert (slopes[0] - slopes[1]).norm() < 1e-3 * slopes[1].norm()
