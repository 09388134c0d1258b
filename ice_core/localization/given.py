"""Concepts that a user named or marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.concepts import Candidate, Concept, ConceptSet, unique_key
from ice_core.errors import IceError
from ice_core.localization.config import LocalizationConfig
from ice_core.localization.masking import explained, extend, new_concepts
from ice_core.localization.naming import Retrieves, alone, named
from ice_core.localization.retrieval.towers import ImageTextModel
from ice_core.localization.segmentation import (
    Segmentation,
    check_picture,
    contrast,
    find_objects,
    redrawn,
    segment_words,
)
from ice_core.model.backbone import Backbone

_USUALLY_COVERED, _LEAST_COVERED = 0.2, 0.05
"""Of an object that goes to a word, the words together cover the first share; where a word got none, it
covers the second of one that is left."""


def concepts_from_labels(
    backbone: Backbone,
    image: Tensor,
    labels: Sequence[str],
    config: LocalizationConfig,
    generator: torch.Generator,
    towers: ImageTextModel | None = None,
) -> ConceptSet:
    """Objects of an image [3, H, W] of the given words, which are all looked for in one pass; words that
    nothing was found for are absent.

    With the strategy "objects", an object that is found without words, and where any of them is, goes to the
    one that CLIP (`towers`) says of it alone, or else to the one that stands out most on it; a word that gets
    none has its own mask, as all have with the strategy "words".
    Where two words claim the same pixels the earlier one keeps them. generator: on the CPU.
    Raises IceError for what is no picture, and for no or empty words.
    """
    check_picture(image, backbone.multiple)
    image = image.detach().float().cpu().clamp(0, 1)
    labels = list(dict.fromkeys(_check_labels(labels)))
    objects: tuple[Tensor, ...] = ()
    if config.strategy == "objects":
        objects = find_objects(backbone, image, config.objects, generator, config.min_area, config.neck).masks
    seen = segment_words(backbone, image, labels, config.segmentation, generator)
    places = dict(zip(labels, seen, strict=True))
    owners = _owners(objects, places, _fitting(image, objects, places, towers))
    result = ConceptSet(image, (), torch.zeros(image.shape[1:], dtype=torch.bool))
    for label, place in places.items():
        own = [mask for mask, owner in zip(objects, owners, strict=True) if owner == label]
        for mask in own:
            key = unique_key(label, {concept.key for concept in result.concepts})
            found: tuple[Concept, ...] = (
                Concept(key, label, mask, contrast(place.relevance, mask, ~place.mask & ~mask)),
            )
            result = extend(result, found, place.background)
    for label, place in places.items():
        if label not in owners:
            # The user says that the word is there: what an earlier word took for background may hold it.
            taken = explained(ConceptSet(image, result.concepts, torch.zeros_like(result.background)))
            found = new_concepts(result, label, place, taken, config)
            result = extend(result, found, place.background)
    return result


def _owners(
    masks: Sequence[Tensor], places: Mapping[str, Segmentation], fitting: Sequence[Sequence[float]]
) -> list[str | None]:
    """The word of each object [H, W]: of those whose places cover it, the one that fits best; None for no
    word's. fitting: by object, how well each word fits."""
    words = list(places)
    anywhere = torch.stack([place.mask for place in places.values()]).any(0)
    owners: list[str | None] = []
    for mask, fits in zip(masks, fitting, strict=True):
        covered = float(anywhere[mask].float().mean()) >= _USUALLY_COVERED
        owners.append(words[max(range(len(words)), key=lambda n: fits[n])] if covered else None)
    for label, place in places.items():
        free = {n: float(place.mask[masks[n]].float().mean()) for n, own in enumerate(owners) if own is None}
        if label not in owners and free:
            best = max(free, key=lambda n: free[n])
            if free[best] >= _LEAST_COVERED:
                owners[best] = label
    return owners


def _fitting(
    image: Tensor, masks: Sequence[Tensor], places: Mapping[str, Segmentation], towers: ImageTextModel | None
) -> list[list[float]]:
    """By object [H, W], how well each word fits: by CLIP, which sees it alone, or by attention."""
    if towers is None or not masks:
        return [[_times_outside(place.relevance, mask) for place in places.values()] for mask in masks]
    seen = towers.encode_images(torch.stack([alone(image, mask) for mask in masks]))
    fits: list[list[float]] = (seen @ towers.encode_texts(list(places)).T).tolist()
    return fits


def _times_outside(relevance: Tensor, mask: Tensor) -> float:
    """How often the mean relevance [H, W] outside of a mask goes into that inside: words that the model
    attends to everywhere stand out nowhere."""
    outside = relevance[~mask].mean() if not mask.all() else relevance.mean()
    return float(relevance[mask].mean() / outside.clamp(min=1e-8))


def concepts_from_masks(
    image: Tensor,
    labels: Sequence[str] | None,
    masks: Sequence[Tensor] | Tensor,
    retriever: Retrieves | None = None,
    refine: bool = False,
) -> ConceptSet:
    """Concepts the user marked: image [3, H, W] in 0..1, one mask [h, w] each, and one word each, or None for
    words that the retriever finds for each alone.

    Masks are bool, or numbers of which those above 0.5 count, and are resized (nearest) to the image. With
    `refine` they are rough: their outlines are drawn anew along the picture's contours. Everything outside
    of them is background. Raises IceError for what is no picture, empty words, and masks that are empty,
    misshapen or not one per word.
    """
    check_picture(image)
    image = image.detach().float().cpu().clamp(0, 1)
    given = None if labels is None else _check_labels(labels)
    if given is not None and len(given) != len(masks):
        words = f"{_counted(len(given), 'word')} ({', '.join(given)})"
        raise IceError(f"{words} but {_counted(len(masks), 'mask')}; give one mask per word")
    if not len(masks):
        raise IceError("no masks were given; mark at least one object")
    titles = [repr(word) for word in given] if given else [f"object {n}" for n in range(1, len(masks) + 1)]
    sized = [
        _resized(mask, title, image.shape[1], image.shape[2])
        for mask, title in zip(masks, titles, strict=True)
    ]
    if refine:
        sized = redrawn(sized, image)
    names = [(word, ()) for word in given] if given else _names(image, sized, retriever)
    concepts: dict[str, Concept] = {}
    for (label, finer), mask in zip(names, sized, strict=True):
        key = unique_key(label, concepts)
        concepts[key] = Concept(key, label, mask, 1.0, finer)
    background = torch.ones(image.shape[1:], dtype=torch.bool)
    for concept in concepts.values():
        background &= ~concept.mask
    return ConceptSet(image, tuple(concepts.values()), background)


def _names(
    image: Tensor, masks: Sequence[Tensor], retriever: Retrieves | None
) -> list[tuple[str, tuple[Candidate, ...]]]:
    """A word for each mask [H, W], and finer ones."""
    if retriever is None:
        raise IceError("the masks have no words and there is nothing to find any; give one word per mask")
    return [named(retriever.retrieve(alone(image, mask))) for mask in masks]


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _check_labels(labels: Sequence[str]) -> list[str]:
    """Stripped words; IceError when there are none, or an empty one."""
    if not labels:
        raise IceError("no words were given; name at least one object, for example 'ball'")
    stripped = [label.strip() for label in labels]
    if "" in stripped:
        which = f"word {stripped.index('') + 1} of {len(stripped)}"
        raise IceError(f"{which} is empty; name the object, or leave it out")
    return stripped


def _resized(mask: Tensor, title: str, height: int, width: int) -> Tensor:
    """A mask [h, w] or [1, h, w] as [height, width] bool on the CPU, checked."""
    shape = list(mask.shape)
    if mask.ndim == 3 and shape[0] == 1:
        mask = mask[0]
    if mask.ndim != 2 or 0 in shape:
        raise IceError(f"the mask of {title} has shape {shape}; it must be [height, width]")
    values = mask.detach().float().cpu()
    if not values.isfinite().all():
        raise IceError(f"the mask of {title} holds NaN or infinite values; draw it again")
    resized = F.interpolate(values[None, None], size=(height, width), mode="nearest-exact")[0, 0] > 0.5
    if not resized.any():
        raise IceError(f"the mask of {title} is empty; mark the pixels of the object")
    return resized
