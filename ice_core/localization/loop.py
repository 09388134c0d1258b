"""Stage One: find every object of a picture.

By words, as ICE (arXiv 2503.19902), section 3.1: retrieve a word, segment it, black out what is explained, go
on. By objects (ours, the default): find them all in one pass and name each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ice_core.concepts import Concept, ConceptSet, unique_key
from ice_core.localization.config import LocalizationConfig
from ice_core.localization.masking import explained, extend, new_concepts
from ice_core.localization.naming import Retrieves, alone, named
from ice_core.localization.segmentation import check_picture, contrast, find_objects, segment
from ice_core.model.backbone import Backbone


@dataclass(frozen=True)
class LocalizationRound:
    """One word tried, or one object named. index: from 1; label: the word, empty where the retriever had
    none left; seen: what the retriever was shown [3, H, W]; candidates: what it offered; found: new
    concepts; result: everything so far; ended: why this round is the last, empty where another follows."""

    index: int
    label: str
    seen: Tensor
    candidates: tuple[Any, ...]
    found: tuple[Concept, ...]
    result: ConceptSet
    ended: str = ""


def localize(
    backbone: Backbone,
    retriever: Retrieves,
    image: Tensor,
    config: LocalizationConfig,
    generator: torch.Generator,
) -> Iterator[LocalizationRound]:
    """Objects of an image [3, H, W] in 0..1, one round per word or object; there is at least one round.

    With the strategy "objects" every round is a found object, largest first; a picture in which nothing
    stands out from its background is searched by words. With "words" it ends when less than
    `config.unexplained` is left, when words or rounds run out, or after `config.patience` fruitless rounds.
    The last result may hold no concept. generator: on the CPU. Raises IceError for what is no picture.
    """
    check_picture(image, backbone.multiple)
    image = image.detach().float().cpu().clamp(0, 1)
    some = False
    if config.strategy == "objects":
        for step in _by_objects(backbone, retriever, image, config, generator):
            some = True
            yield step
    if not some:
        yield from _by_words(backbone, retriever, image, config, generator)


def _by_objects(
    backbone: Backbone,
    retriever: Retrieves,
    image: Tensor,
    config: LocalizationConfig,
    generator: torch.Generator,
) -> Iterator[LocalizationRound]:
    """Objects first, then a name for each alone; nothing at all where there is no foreground."""
    objects = find_objects(backbone, image, config.objects, generator, config.min_area, config.neck)
    masks = objects.masks[: config.max_rounds]
    rest = ~objects.foreground
    result = ConceptSet(image, (), torch.zeros_like(rest))
    keys: set[str] = set()
    for index, mask in enumerate(masks, 1):
        seen = alone(image, mask)
        candidates = tuple(retriever.retrieve(seen))
        label, finer = named(candidates)
        key = unique_key(label, keys)
        keys.add(key)
        found = (Concept(key, label, mask, contrast(objects.relevance, mask, rest), finer),)
        result = extend(result, found, rest)
        ended = ""
        if index == len(masks):
            left = len(objects.masks) - len(masks)
            ended = f"{left} smaller objects are left out" if left else "every object has its name"
        yield LocalizationRound(index, label, seen, candidates, found, result, ended)


def _by_words(
    backbone: Backbone,
    retriever: Retrieves,
    image: Tensor,
    config: LocalizationConfig,
    generator: torch.Generator,
) -> Iterator[LocalizationRound]:
    """Words first. A word's mask may hold other things of like shape, so each component is shown to the
    retriever alone, and where the word is not among what it sees the component is named anew (ours)."""
    result = ConceptSet(image, (), torch.zeros(image.shape[1:], dtype=torch.bool))
    used: list[str] = []
    fruitless = 0
    for index in range(1, config.max_rounds + 1):
        visible = image * ~explained(result)
        candidates = tuple(retriever.retrieve(visible, tuple(used)))
        if not candidates:
            yield LocalizationRound(index, "", visible, (), (), result, "no word is left for the rest")
            return
        label = candidates[0].label
        used.append(label)
        segmentation = segment(backbone, image, label, config.segmentation, generator)
        found = new_concepts(result, label, segmentation, explained(result), config)
        found = _named_alone(retriever, result, found)
        if found:
            # A word that is not there explains nothing: its "background" may hold every object.
            result = extend(result, found, segmentation.background)
        fruitless = 0 if found else fruitless + 1
        ended = ""
        if result.unexplained < config.unexplained:
            ended = f"less than {config.unexplained:.0%} of the picture is left"
        elif fruitless == config.patience:
            ended = f"{fruitless} words in a row found nothing new"
        elif index == config.max_rounds:
            ended = f"{index} words were tried"
        yield LocalizationRound(index, label, visible, candidates, found, result, ended)
        if ended:
            return


def _named_alone(retriever: Retrieves, result: ConceptSet, found: tuple[Concept, ...]) -> tuple[Concept, ...]:
    """New concepts, each under the best word for it alone when its own is not among the candidates."""
    keys = {concept.key for concept in result.concepts}
    named = []
    for concept in found:
        words = [candidate.label for candidate in retriever.retrieve(alone(result.image, concept.mask))]
        label = concept.label if not words or concept.label in words else words[0]
        key = unique_key(label, keys)
        keys.add(key)
        named.append(replace(concept, key=key, label=label))
    return tuple(named)
