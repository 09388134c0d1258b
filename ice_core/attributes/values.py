"""The values that flow: an axis with its words, and what was read of an object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ice_core.errors import IceError

Reader = Literal["clip", "model", "user"]


@dataclass(frozen=True)
class Axis:
    """A property that objects have. name: one plain word; values: words or short phrases that a text
    encoder knows; without any the axis is free: nothing of it can be read."""

    name: str
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for value in self.values:
            if not value.strip():
                raise IceError(
                    f"the axis {self.name!r} has an empty value: write for example finish=matte|glossy"
                )
            if self.values.count(value) > 1:
                raise IceError(f"the axis {self.name!r} has the value {value!r} twice: name each once")

    @property
    def free(self) -> bool:
        """Whether it has no values to choose from."""
        return not self.values


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
    """

    axis: str
    candidates: tuple[Candidate, ...]
    reader: Reader
    fits: bool = True

    @property
    def value(self) -> str | None:
        """The word for it; None where nothing fits."""
        return self.candidates[0].value if self.candidates and self.fits else None


Readings = Mapping[str, Mapping[str, Reading]]
"""By object key, then by axis."""


def said(axis: str, value: str) -> Reading:
    """What a user says of an axis: certain."""
    return Reading(axis, (Candidate(value, 1.0),), "user")
