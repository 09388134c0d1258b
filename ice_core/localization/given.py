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
from ice_core.localization.naming import NAMELESS, Retrieves, alone, named
from ice_core.localization.retrieval.towers import ImageTextModel
from ice_core.localization.segmentation import (
    Segmentation,
    check_picture,
    contrast,
    encode_views,
    find_objects,
    redrawn,
    segment_words,
)
from ice_core.model.backbone import Backbone

_USUALLY_COVERED, _LEAST_COVERED = 0.2, 0.05
"""Of an object that goes to a word by attention, the words together cover the first share; a word that got
none covers the second of one that is left."""


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

    With the strategy "objects", an object that is found without words goes to the word that CLIP (`towers`)
    says of it alone, or without that to the one that stands out most on it, if any does; a word that gets
    none has its own mask, as all have with the strategy "words".
    Where two words claim the same pixels the earlier one keeps them. generator: on the CPU.
    Raises IceError for what is no picture, and for no or empty words.
    """
    check_picture(image, backbone.multiple)
    image = image.detach().float().cpu().clamp(0, 1)
    labels = list(dict.fromkeys(_check_labels(labels)))
    views = encode_views(backbone, image, config.segmentation.flip)
    objects: tuple[Tensor, ...] = ()
    if config.strategy == "objects":
        found = find_objects(
            backbone, image, config.objects, generator, config.min_area, config.neck, views[:1]
        )
        objects = found.masks
    seen = segment_words(backbone, image, labels, config.segmentation, generator, views)
    places = dict(zip(labels, seen, strict=True))
    if towers is None or not objects:
        owners = [_standing_out(mask, places) for mask in objects]
    else:
        owners = _said_by(towers, image, objects, labels)
    owners = _with_own(owners, objects, places)
    result = ConceptSet(image, (), torch.zeros(image.shape[1:], dtype=torch.bool))
    for label, place in places.items():
        own = [mask for mask, owner in zip(objects, owners, strict=True) if owner == label]
        for mask in own:
            key = unique_key(label, {concept.key for concept in result.concepts})
            score = contrast(place.relevance, mask, ~place.mask & ~mask)
            result = extend(result, (Concept(key, label, mask, score),), place.background)
    for label, place in places.items():
        if label not in owners:
            # The user says that the word is there: what an earlier word took for background may hold it.
            taken = explained(ConceptSet(image, result.concepts, torch.zeros_like(result.background)))
            own_place = new_concepts(result, label, place, taken, config)
            result = extend(result, own_place, place.background)
    return result


def _said_by(
    towers: ImageTextModel, image: Tensor, masks: Sequence[Tensor], labels: Sequence[str]
) -> list[str | None]:
    """The word of each object [H, W] by CLIP, which sees it alone; None where a word that fits anything fits
    better."""
    seen = towers.encode_images(torch.stack([alone(image, mask) for mask in masks]))
    best = (seen @ towers.encode_texts([*labels, NAMELESS]).T).argmax(1).tolist()
    return [labels[n] if n < len(labels) else None for n in best]


def _standing_out(mask: Tensor, places: Mapping[str, Segmentation]) -> str | None:
    """The word of an object [H, W] by attention: of those whose places cover it together, the one whose mean
    relevance within is the most times that outside (what is attended to everywhere stands out nowhere)."""
    anywhere = torch.stack([place.mask for place in places.values()]).any(0)
    if float(anywhere[mask].float().mean()) < _USUALLY_COVERED:
        return None
    rest = ~mask if not mask.all() else mask

    def times(label: str) -> float:
        relevance = places[label].relevance
        return float(relevance[mask].mean() / relevance[rest].mean().clamp(min=1e-8))

    return max(places, key=times)


def _with_own(
    owners: Sequence[str | None], masks: Sequence[Tensor], places: Mapping[str, Segmentation]
) -> list[str | None]:
    """Owners of objects [H, W], where a word without any takes the one that is left which it covers most."""
    owners = list(owners)
    for label, place in places.items():
        free = {n: float(place.mask[masks[n]].float().mean()) for n, own in enumerate(owners) if own is None}
        if label not in owners and free:
            best = max(free, key=lambda n: free[n])
            if free[best] >= _LEAST_COVERED:
                owners[best] = label
    return owners


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
