"""The values that flow: an axis with its words, and what was read of an object."""

from __future__ import annotations

from dataclasses import dataclass

from ice_core.concepts import Candidate, Reader, Reading, Readings, said
from ice_core.errors import IceError

__all__ = ["Axis", "Candidate", "Reader", "Reading", "Readings", "said"]


_NOTHING = ("plain", "none")
"""Values that say that there is nothing which could have a degree."""


@dataclass(frozen=True)
class Axis:
    """A property that objects have. name: one plain word; values: words or short phrases that a text
    encoder knows; without any the axis is free: nothing of it can be read. degrees: pairs of opposite words
    that say how much of a value there is, narrow and wide of stripes; no object is read as one of them."""

    name: str
    values: tuple[str, ...] = ()
    degrees: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for low, high in self.degrees:
            if not low.strip() or not high.strip() or low == high:
                raise IceError(
                    f"the axis {self.name!r} has the degrees {low!r} and {high!r}: write two opposite words, "
                    "for example narrow<wide"
                )
        for value in self.values:
            if not value.strip():
                raise IceError(
                    f"the axis {self.name!r} has an empty value: write for example finish=matte|glossy"
                )
            if self.values.count(value) > 1:
                raise IceError(f"the axis {self.name!r} has the value {value!r} twice: name each once")

    def degrees_of(self, value: str) -> tuple[tuple[str, str], ...]:
        """The pairs between which a value may lie: none for one that says that there is nothing."""
        return () if value in _NOTHING else self.degrees

    @property
    def free(self) -> bool:
        """Whether it has no values to choose from."""
        return not self.values
