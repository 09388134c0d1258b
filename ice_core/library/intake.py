"""From a concept set to what a library keeps of it, and back to a set of some of its concepts."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ice_core.attributes.reading import views
from ice_core.concepts import LearnedConcept, readings_to_plain
from ice_core.files.concept_set import SavedConcepts
from ice_core.files.images import image_from_bytes, jpeg_bytes, resize_mask
from ice_core.localization.retrieval.towers import ImageTextModel

THUMBNAIL = 128
"""Side in pixels."""


@dataclass(frozen=True)
class Row:
    """One concept as the tables have it. readings: JSON; thumbnail: None where there is no picture."""

    key: str
    label: str
    score: float | None
    area: float | None
    readings: str
    properties: Mapping[str, tuple[str, float]]
    thumbnail: bytes | None


def rows_of(saved: SavedConcepts) -> list[Row]:
    """The concepts of a set. Raises IceError for a picture in it that cannot be read."""
    found = {concept.key: concept for concept in saved.found}
    crops = cut_out(saved)
    return [
        Row(
            key=concept.key,
            label=concept.label,
            score=found[concept.key].score if concept.key in found else None,
            area=found[concept.key].area if concept.key in found else None,
            readings=json.dumps(readings_to_plain({"": concept.readings})[""], ensure_ascii=False),
            properties=_properties(concept),
            thumbnail=_thumbnail(saved, concept.key, crops.get(concept.key)),
        )
        for concept in saved.learned.concepts
    ]


def _properties(concept: LearnedConcept) -> dict[str, tuple[str, float]]:
    return {
        axis: (reading.value, reading.candidates[0].weight)
        for axis, reading in concept.readings.items()
        if reading.value is not None
    }


def _thumbnail(saved: SavedConcepts, key: str, crop: Tensor | None) -> bytes | None:
    """The object as it was in its picture, else what was drawn of it."""
    if crop is not None:
        return jpeg_bytes(crop, THUMBNAIL)
    return saved.thumbnails.get(key)


def cut_out(saved: SavedConcepts) -> dict[str, Tensor]:
    """By key, the object with a margin of its picture around it, [3, S, S] in 0..1; absent without a mask."""
    if saved.picture is None:
        return {}
    picture = image_from_bytes(saved.picture, f"the picture of {saved.title or 'a concept set'}")
    size = (picture.shape[1], picture.shape[2])
    masks = {concept.key: resize_mask(concept.mask, size) for concept in saved.found}
    return {key: views(picture, mask, ("picture crop",))[0] for key, mask in masks.items() if mask.any()}


def vectors_of(saved: SavedConcepts, towers: ImageTextModel) -> dict[str, NDArray[np.float32]]:
    """By key, the embedding [D] of the object as it was in its picture."""
    crops = cut_out(saved)
    if not crops:
        return {}
    seen = towers.encode_images(torch.stack(list(crops.values()))).numpy()
    return dict(zip(crops, seen, strict=True))


def of_concepts(saved: SavedConcepts, keys: Collection[str]) -> SavedConcepts:
    """The same set with only these concepts; the sheet, which shows all of them, only while all are left."""
    if {concept.key for concept in saved.learned.concepts} == set(keys):
        return saved
    learned = replace(saved.learned, concepts=tuple(one for one in saved.learned.concepts if one.key in keys))
    found = tuple(one for one in saved.found if one.key in keys)
    thumbnails = {name: data for name, data in saved.thumbnails.items() if name.partition(".")[0] in keys}
    return replace(saved, learned=learned, found=found, thumbnails=thumbnails, sheet=None)


def titled(saved: SavedConcepts) -> SavedConcepts:
    """With a title, which would else be the file's name: the same content has to give the same bytes."""
    names = ", ".join(concept.key for concept in saved.learned.concepts)
    return saved if saved.title else replace(saved, title=names)
