"""The field's measures against torchmetrics, and pictures that would fool some of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchmetrics.functional import pairwise_cosine_similarity
from torchmetrics.functional.classification import multiclass_accuracy

from ice_core.concepts import unit
from ice_core.errors import IceError
from ice_core.evaluation.concept_extraction import DrawnConcept, DrawnPicture, classified, extraction_scores


def random_set(concepts: int = 7, drawn: int = 5, width: int = 12, noise: float = 1.0) -> list[DrawnConcept]:
    rng = torch.Generator().manual_seed(3)
    sources = torch.randn(concepts, width, generator=rng)
    return [DrawnConcept(s, s + noise * torch.randn(drawn, width, generator=rng)) for s in sources]


@pytest.mark.parametrize("k", [1, 3])
def test_accuracy_is_torchmetrics_top_k(k: int) -> None:
    concepts = random_set(noise=1.5)
    drawn = torch.cat([c.drawn for c in concepts])
    scores = pairwise_cosine_similarity(drawn, torch.stack([c.source for c in concepts]))
    target = torch.arange(len(concepts)).repeat_interleave(5)
    expected = multiclass_accuracy(scores, target, num_classes=len(concepts), top_k=k, average="micro")
    ours = classified(concepts, k)
    assert 0 < expected < 1
    assert sum(ours) / len(ours) == pytest.approx(expected.item())


def test_similarities_are_torchmetrics_cosines() -> None:
    concepts = tuple(random_set())
    rng = torch.Generator().manual_seed(9)
    pictures = [
        DrawnPicture(torch.randn(12, generator=rng), torch.randn(4, 12, generator=rng), part)
        for part in (concepts[:3], concepts[3:])
    ]
    ours = extraction_scores(pictures)
    identity = [pairwise_cosine_similarity(c.drawn, c.source[None]).mean().item() for c in concepts]
    whole = [pairwise_cosine_similarity(p.drawn, p.source[None]).mean().item() for p in pictures]
    assert ours.identity == pytest.approx(identity, abs=1e-6)
    assert ours.composition == pytest.approx(whole, abs=1e-6)
    assert set(ours.accuracy) == {1, 3}


def test_pictures_in_which_nothing_was_found_do_not_count() -> None:
    concepts = tuple(random_set(4))
    full = DrawnPicture(torch.ones(12), torch.ones(1, 12), concepts)
    empty = DrawnPicture(torch.ones(12), torch.zeros(0, 12), ())
    assert extraction_scores([full, empty]) == extraction_scores([full])


def test_too_few_concepts_are_refused() -> None:
    with pytest.raises(IceError, match="at least 4 concepts"):
        classified(random_set(3), 3)


def world(draw: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, ...]:
    """SIM^I, SIM^C, ACC^1 and ACC^3 of six pictures with two concepts each, all of one kind of scene.

    An embedding is what all pictures share, what its picture has, and what its object has; draw: gives the
    embedding of what was drawn, from the source object's and the whole source's.
    """
    rng = torch.Generator().manual_seed(0)
    shared = 2 * torch.randn(64, generator=rng)
    pictures = []
    for _ in range(6):
        place = shared + torch.randn(64, generator=rng)
        objects = [place + torch.randn(64, generator=rng) for _ in range(2)]
        source = sum(objects) / 2
        drawn = [draw(one, source)[None].repeat(8, 1) for one in objects]
        concepts = tuple(DrawnConcept(unit(o), unit(d)) for o, d in zip(objects, drawn, strict=True))
        pictures.append(DrawnPicture(unit(source), unit((drawn[0] + drawn[1]) / 2), concepts))
    scores = extraction_scores(pictures)
    every = (scores.identity, scores.composition, scores.accuracy[1], scores.accuracy[3])
    return tuple(sum(values) / len(values) for values in every)


def test_pictures_that_ignore_the_tokens_score_badly_somewhere() -> None:
    rng = torch.Generator().manual_seed(1)
    honest = world(lambda one, source: one + 0.5 * torch.randn(64, generator=rng))
    # The same pictures for every concept, of what all sources share: similar to all, nearest to hardly any.
    shared = 2 * torch.randn(64, generator=torch.Generator().manual_seed(0))
    blind = world(lambda one, source: shared)
    # The whole source again for each of its concepts: similar to its parts and to the whole.
    copied = world(lambda one, source: source)
    assert min(honest) > 0.85
    assert blind[0] > 0.7
    assert blind[2] < 0.2
    assert copied[1] > 0.99
    assert copied[2] <= 0.5
