"""Stage One: find every object of a picture, round by round.

ICE (arXiv 2503.19902), section 3.1: retrieve a word, segment it, black out what is explained, go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.concepts import Concept, ConceptSet, unique_key
from ice_core.errors import IceError
from ice_core.localization.segmentation import (
    Segmentation,
    SegmentationConfig,
    check_picture,
    components,
    contrast,
    segment,
)
from ice_core.model.backbone import Backbone

_MOST_OVERLAP = 0.5
"""A component that was explained before by more than this share of its area is nothing new."""


class Retrieves(Protocol):
    """Names what is in a picture."""

    def retrieve(self, image: Tensor, used: Sequence[str] = ()) -> Sequence[Any]:
        """Candidates for an image [3, H, W], best first, each with a `.label`; none like a used one."""


@dataclass(frozen=True)
class LocalizationConfig:
    """Stage One with the paper's values.

    max_rounds: words that are tried at most. unexplained: end below this share of the picture.
    min_area: an object covers more than this share. patience: end after so many rounds in a row that
    find nothing new (ours: a word may be wrong, the next one right). neck: objects that touch are taken
    apart where their mask is at most this narrow, relative to the smaller one's thickness (ours; 0
    leaves them together).
    """

    max_rounds: int = 10
    unexplained: float = 0.10
    min_area: float = 0.025
    patience: int = 3
    neck: float = 0.7
    segmentation: SegmentationConfig = field(default_factory=SegmentationConfig)

    def __post_init__(self) -> None:
        for name in ("max_rounds", "patience"):
            if getattr(self, name) < 1:
                raise IceError(f"localization {name} is {getattr(self, name)}; it must be at least 1")
        for name in ("unexplained", "min_area"):
            if not 0 <= getattr(self, name) < 1:
                raise IceError(f"localization {name} is {getattr(self, name)}; it is a share, 0 to below 1")
        if not 0 <= self.neck <= 1:
            raise IceError(f"localization neck is {self.neck}; it must be in 0..1")


@dataclass(frozen=True)
class LocalizationRound:
    """One word tried. index: from 1; label: the word, empty where the retriever had none left;
    candidates: what the retriever offered; found: new objects; result: everything so far."""

    index: int
    label: str
    candidates: tuple[Any, ...]
    found: tuple[Concept, ...]
    result: ConceptSet


def localize(
    backbone: Backbone,
    retriever: Retrieves,
    image: Tensor,
    config: LocalizationConfig,
    generator: torch.Generator,
) -> Iterator[LocalizationRound]:
    """Objects of an image [3, H, W] in 0..1, one round per word; there is at least one round.

    Ends when less than `config.unexplained` is left, when words or rounds run out, or after
    `config.patience` fruitless rounds. The last result may hold no concept. A word's mask may hold other
    things of like shape, so each component is shown to the retriever alone, and where the word is not
    among what it sees the component is named anew (ours). generator: on the CPU.
    Raises IceError for what is no picture.
    """
    check_picture(image, backbone.multiple)
    image = image.detach().float().cpu().clamp(0, 1)
    result = ConceptSet(image, (), torch.zeros(image.shape[1:], dtype=torch.bool))
    used: list[str] = []
    fruitless = 0
    for index in range(1, config.max_rounds + 1):
        visible = image * ~_explained(result)
        candidates = tuple(retriever.retrieve(visible, tuple(used)))
        if not candidates:
            yield LocalizationRound(index, "", (), (), result)
            return
        label = candidates[0].label
        used.append(label)
        segmentation = segment(backbone, image, label, config.segmentation, generator)
        found = _new_concepts(result, label, segmentation, _explained(result), config)
        found = _named_alone(retriever, result, found)
        if found:
            # A word that is not there explains nothing: its "background" may hold every object.
            result = _extend(result, found, segmentation.background)
        yield LocalizationRound(index, label, candidates, found, result)
        fruitless = 0 if found else fruitless + 1
        if result.unexplained < config.unexplained or fruitless == config.patience:
            return


def concepts_from_labels(
    backbone: Backbone,
    image: Tensor,
    labels: Sequence[str],
    config: LocalizationConfig,
    generator: torch.Generator,
) -> ConceptSet:
    """Objects [3, H, W] of the given words, in one pass; words that nothing was found for are absent.

    Where two words claim the same pixels the earlier one keeps them. generator: on the CPU.
    Raises IceError for what is no picture, and for no or empty words.
    """
    check_picture(image, backbone.multiple)
    image = image.detach().float().cpu().clamp(0, 1)
    result = ConceptSet(image, (), torch.zeros(image.shape[1:], dtype=torch.bool))
    for label in dict.fromkeys(_check_labels(labels)):
        segmentation = segment(backbone, image, label, config.segmentation, generator)
        # The user says that the word is there: what an earlier word took for background may hold it.
        taken = _explained(ConceptSet(image, result.concepts, torch.zeros_like(result.background)))
        found = _new_concepts(result, label, segmentation, taken, config)
        result = _extend(result, found, segmentation.background)
    return result


def concepts_from_masks(image: Tensor, labels: Sequence[str], masks: Sequence[Tensor] | Tensor) -> ConceptSet:
    """Concepts the user marked: image [3, H, W] in 0..1, one word and one mask [h, w] each.

    Masks are bool, or numbers of which those above 0.5 count, and are resized (nearest) to the image.
    Everything outside of them is background. Raises IceError for what is no picture, empty words, and
    masks that are empty, misshapen or not one per word.
    """
    check_picture(image)
    image = image.detach().float().cpu().clamp(0, 1)
    labels = _check_labels(labels)
    if len(labels) != len(masks):
        words = f"{len(labels)} words ({', '.join(labels)})"
        raise IceError(f"{words} but {len(masks)} masks; give one mask per word")
    concepts: dict[str, Concept] = {}
    for label, mask in zip(labels, masks, strict=True):
        key = unique_key(label, concepts)
        concepts[key] = Concept(key, label, _resized(mask, label, image.shape[1], image.shape[2]), 1.0)
    background = torch.ones(image.shape[1:], dtype=torch.bool)
    for concept in concepts.values():
        background &= ~concept.mask
    return ConceptSet(image, tuple(concepts.values()), background)


def _explained(result: ConceptSet) -> Tensor:
    """[H, W] bool: masks and background."""
    covered = result.background.clone()
    for concept in result.concepts:
        covered |= concept.mask
    return covered


def _new_concepts(
    result: ConceptSet,
    label: str,
    segmentation: Segmentation,
    explained: Tensor,
    config: LocalizationConfig,
) -> tuple[Concept, ...]:
    """Components of the mask that are mostly new; pixels of earlier concepts stay theirs."""
    keys = {concept.key for concept in result.concepts}
    owned = torch.zeros_like(result.background)
    for concept in result.concepts:
        owned |= concept.mask
    found = []
    for part in components(segmentation.mask, config.min_area, neck=config.neck):
        if (part & explained).sum() > _MOST_OVERLAP * part.sum():
            continue
        mask = part & ~owned
        if mask.float().mean() <= config.min_area:
            continue
        key = unique_key(label, keys)
        keys.add(key)
        score = contrast(segmentation.relevance, mask, ~segmentation.mask)
        found.append(Concept(key, label, mask, score))
    return tuple(found)


def _named_alone(retriever: Retrieves, result: ConceptSet, found: tuple[Concept, ...]) -> tuple[Concept, ...]:
    """New concepts, each under the best word for it alone when its own is not among the candidates."""
    keys = {concept.key for concept in result.concepts}
    named = []
    for concept in found:
        words = [candidate.label for candidate in retriever.retrieve(result.image * concept.mask)]
        label = concept.label if not words or concept.label in words else words[0]
        key = unique_key(label, keys)
        keys.add(key)
        named.append(replace(concept, key=key, label=label))
    return tuple(named)


def _extend(result: ConceptSet, found: tuple[Concept, ...], background: Tensor) -> ConceptSet:
    """New concepts, and new background wherever there is no concept."""
    concepts = (*result.concepts, *found)
    background = result.background | background
    for concept in concepts:
        background = background & ~concept.mask
    return ConceptSet(result.image, concepts, background)


def _check_labels(labels: Sequence[str]) -> list[str]:
    """Stripped words; IceError when there are none, or an empty one."""
    if not labels:
        raise IceError("no words were given; name at least one object, for example 'ball'")
    stripped = [label.strip() for label in labels]
    if "" in stripped:
        which = f"word {stripped.index('') + 1} of {len(stripped)}"
        raise IceError(f"{which} is empty; name the object, or leave it out")
    return stripped


def _resized(mask: Tensor, label: str, height: int, width: int) -> Tensor:
    """A mask [h, w] or [1, h, w] as [height, width] bool on the CPU, checked."""
    shape = list(mask.shape)
    if mask.ndim == 3 and shape[0] == 1:
        mask = mask[0]
    if mask.ndim != 2 or 0 in shape:
        raise IceError(f"the mask of {label!r} has shape {shape}; it must be [height, width]")
    values = mask.detach().float().cpu()
    if not values.isfinite().all():
        raise IceError(f"the mask of {label!r} holds NaN or infinite values; draw it again")
    resized = F.interpolate(values[None, None], size=(height, width), mode="nearest-exact")[0, 0] > 0.5
    if not resized.any():
        raise IceError(f"the mask of {label!r} is empty; mark the pixels of the object")
    return resized
