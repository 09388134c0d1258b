"""The values that flow through the house: found concepts, and learned ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ice_core.errors import IceError
from ice_core.model.backbone import Backbone, Token
from ice_core.model.encoders import family_of


@dataclass(frozen=True)
class Concept:
    """One object found in a picture. key: unique name ("ball", "ball-2"); mask: [H, W] bool, CPU;
    score: confidence in 0..1 (1 where the user gave the mask); finer: what it may be more exactly
    ("dog": "golden retriever"), likeliest first."""

    key: str
    label: str
    mask: Tensor
    score: float
    finer: tuple[Candidate, ...] = ()

    @property
    def area(self) -> float:
        """Share of the picture in 0..1."""
        return self.mask.float().mean().item()

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in pixels, right and bottom exclusive."""
        rows, columns = self.mask.any(1).nonzero()[:, 0], self.mask.any(0).nonzero()[:, 0]
        if not len(rows):
            return (0, 0, 0, 0)
        return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


@dataclass(frozen=True)
class ConceptSet:
    """A picture [3, H, W] in 0..1 and what was found in it; background: [H, W] bool, explained ground."""

    image: Tensor
    concepts: tuple[Concept, ...]
    background: Tensor

    @property
    def unexplained(self) -> float:
        """Share of the picture that neither a concept nor the background covers."""
        covered = self.background.clone()
        for concept in self.concepts:
            covered |= concept.mask
        return 1 - covered.float().mean().item()


def unique_key(label: str, taken: Mapping[str, object] | set[str]) -> str:
    """ "ball", then "ball-2", "ball-3", ...: names that can be typed in a prompt."""
    base = "-".join(label.lower().split())
    key, n = base, 1
    while key in taken:
        n += 1
        key = f"{base}-{n}"
    return key


Reader = Literal["clip", "model", "both", "user"]
"""Both: the diffusion model decided between the words that CLIP was unsure of."""


@dataclass(frozen=True)
class Candidate:
    """A value that may be true. weight: calibrated probability in 0..1 that it is the best of its axis."""

    value: str
    weight: float


@dataclass(frozen=True)
class Reading:
    """What was read of one axis of one object.

    candidates: by falling weight, few; empty for a free axis. reader: who said so, a user's own word too.
    fits: whether the first candidate is likely enough to be said; else the axis is left out of prompts.
    neighbors: values of the axis that shade into the first candidate, nearest first, likely or not: red has
    coral and rust, metal has none.
    degrees: pairs of opposite words that say how much of it: narrow and wide of a pattern.
    """

    axis: str
    candidates: tuple[Candidate, ...]
    reader: Reader
    fits: bool = True
    neighbors: tuple[str, ...] = ()
    degrees: tuple[tuple[str, str], ...] = ()

    @property
    def value(self) -> str | None:
        """The word for it; None where nothing fits."""
        return self.candidates[0].value if self.candidates and self.fits else None


Readings = Mapping[str, Mapping[str, Reading]]
"""By object key, then by axis."""


def readings_to_plain(readings: Readings) -> dict[str, dict[str, dict[str, Any]]]:
    """Readings as JSON has them."""
    return {key: {axis: asdict(one) for axis, one in axes.items()} for key, axes in readings.items()}


def readings_from_plain(plain: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Readings:
    """The inverse of `readings_to_plain`, also after JSON.

    Raises KeyError, TypeError, ValueError or AttributeError for anything else.
    """
    return {key: {str(axis): _reading(one) for axis, one in axes.items()} for key, axes in plain.items()}


def _reading(plain: Mapping[str, Any]) -> Reading:
    reading = Reading(
        plain["axis"],
        tuple(Candidate(one["value"], float(one["weight"])) for one in plain["candidates"]),
        plain["reader"],
        plain["fits"],
        tuple(plain["neighbors"]),
        tuple((low, high) for low, high in plain.get("degrees", ())),
    )
    degrees = (word for pair in reading.degrees for word in pair)
    values = (one.value for one in reading.candidates)
    words = (reading.axis, reading.reader, *reading.neighbors, *degrees, *values)
    if not all(isinstance(word, str) for word in words) or not isinstance(reading.fits, bool):
        raise TypeError(f"a reading of {reading.axis!r} holds something else than words")
    if not all(0 <= one.weight <= 1 for one in reading.candidates):
        raise ValueError(f"a reading of {reading.axis!r} has a weight outside of 0..1")
    return reading


def said(axis: str, value: str) -> Reading:
    """What a user says of an axis: certain."""
    return Reading(axis, (Candidate(value, 1.0),), "user")


_ORDER = ("style", "lighting", "mood", "size", "shape", "pattern", "texture", "color", "material")
"""Properties before a noun as English puts them: "a striped red metal ball". The sequence of size, shape,
color and material is the Cambridge Dictionary's ("Adjectives: order"); what is said of a whole picture comes
before it, and what covers a surface stands with the color."""


def as_people_write(axes: Sequence[str]) -> tuple[str, ...]:
    """Axes in the order of their words before a noun; those that are not in `_ORDER` first, as given."""
    return tuple(sorted(axes, key=lambda axis: _ORDER.index(axis) if axis in _ORDER else -1))


@dataclass(frozen=True)
class LearnedConcept:
    """Tokens of one object: the object itself, and one intrinsic token per axis that could be read.

    instance: what is particular of the object and is no property, where the method learns that; readings:
    by axis, what was read of the object before. Token names are `<key>.instance`, `<key>.object` and
    `<key>.<axis>`.
    """

    key: str
    label: str
    instance: Token | None
    object: Token
    intrinsics: Mapping[str, Token]
    readings: Mapping[str, Reading] = field(default_factory=dict)

    @property
    def properties(self) -> tuple[Token, ...]:
        """The intrinsic tokens in the order in which they stand before a noun."""
        return tuple(self.intrinsics[axis] for axis in as_people_write(tuple(self.intrinsics)))

    @property
    def tokens(self) -> dict[str, Token]:
        """Every token by its name."""
        every = (self.instance, self.object, *self.intrinsics.values())
        return {token.name: token for token in every if token is not None}


@dataclass(frozen=True)
class LearnedConcepts:
    """All objects of one picture, with what made them."""

    concepts: tuple[LearnedConcept, ...]
    axes: tuple[str, ...]
    base_name: str
    base_fingerprint: str
    architecture: str
    seed: int
    steps: int

    @property
    def tokens(self) -> dict[str, Token]:
        """Every token by its name, `<key>.<instance | object | axis>`."""
        return {name: token for c in self.concepts for name, token in c.tokens.items()}


def check_fits(learned: LearnedConcepts | Token, backbone: Backbone) -> None:
    """Raise IceError when rows do not have the text encoders or widths of the backbone."""
    tokens = {learned.name: learned} if isinstance(learned, Token) else learned.tokens
    for token in tokens.values():
        have = {name: value.shape[-1] for name, value in token.rows.items()}
        if have == dict(backbone.encoders):
            continue
        base = ""
        if isinstance(learned, LearnedConcepts):
            base = f"{learned.base_name} ({learned.architecture}, {learned.base_fingerprint[:12]}), "
        raise IceError(
            f"{token.name} was made for {base}{family_of(have)}, but {backbone.name} is "
            f"{family_of(backbone.encoders)}; load the base model it was made for"
        )


def mean_row(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One row [1, D] per encoder: the rule for words of several tokens is their mean."""
    return {name: value.mean(0, keepdim=True) for name, value in rows.items()}


def unit(features: Tensor) -> Tensor:
    """L2-normalised along the last dimension."""
    return torch.nn.functional.normalize(features.float(), dim=-1)
