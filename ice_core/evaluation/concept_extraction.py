"""The measures of unsupervised concept extraction, on embeddings of any image encoder.

Hao et al., "ConceptExpress: Harnessing Diffusion Models for Single-image Unsupervised Concept Extraction",
ECCV 2024 (arXiv 2407.07077). Every concept of a picture is drawn several times with its tokens alone, and the
picture several times with the tokens of all its concepts:

- identity similarity SIM^I: the masked source object against the pictures of its concept;
- compositional similarity SIM^C: the whole source against the pictures of all its concepts together;
- ACC^1, ACC^3: a picture of a concept goes to the nearest prototypes of the whole data set, which are the
  masked source objects; right when its own is among the nearest 1 or 3.

Similarity alone is no proof: pictures that show the same whatever the tokens say may be similar to all
sources. They cannot be nearest to each one's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ice_core.concepts import unit
from ice_core.errors import IceError


@dataclass(frozen=True)
class DrawnConcept:
    """Embeddings of one concept. source: [D], the masked object; drawn: [M, D], pictures of its tokens."""

    source: Tensor
    drawn: Tensor


@dataclass(frozen=True)
class DrawnPicture:
    """Embeddings of one source picture. source: [D], the whole of it; drawn: [M, D], pictures of all its
    concepts together; concepts: each alone."""

    source: Tensor
    drawn: Tensor
    concepts: tuple[DrawnConcept, ...]


@dataclass(frozen=True)
class ExtractionScores:
    """identity, accuracy (by k): per concept of the data set; composition: per picture with a concept."""

    identity: tuple[float, ...]
    composition: tuple[float, ...]
    accuracy: dict[int, tuple[float, ...]]


def cosines(source: Tensor, drawn: Tensor) -> Tensor:
    """Cosine [M] of an embedding [D] with each of [M, D]."""
    return unit(drawn) @ unit(source)


def classified(concepts: Sequence[DrawnConcept], k: int) -> tuple[float, ...]:
    """Per concept, the share of its pictures whose own prototype is among the k nearest of all concepts'.

    Raises IceError unless there are more than k concepts: else every picture would be right.
    """
    if len(concepts) <= k:
        raise IceError(
            f"ACC^{k} of {len(concepts)} concepts says nothing: every picture would be right; "
            f"give pictures with at least {k + 1} concepts"
        )
    prototypes = unit(torch.stack([concept.source for concept in concepts]))
    shares = []
    for index, concept in enumerate(concepts):
        nearest = (unit(concept.drawn) @ prototypes.T).topk(k, dim=1).indices
        shares.append((nearest == index).any(1).float().mean().item())
    return tuple(shares)


def extraction_scores(pictures: Sequence[DrawnPicture], ks: Sequence[int] = (1, 3)) -> ExtractionScores:
    """SIM^I, SIM^C and ACC^k of a data set; pictures in which nothing was found count in none of them.

    Raises IceError for too few concepts, see `classified`.
    """
    concepts = [concept for picture in pictures for concept in picture.concepts]
    return ExtractionScores(
        identity=tuple(cosines(c.source, c.drawn).mean().item() for c in concepts),
        composition=tuple(cosines(p.source, p.drawn).mean().item() for p in pictures if p.concepts),
        accuracy={k: classified(concepts, k) for k in ks},
    )
