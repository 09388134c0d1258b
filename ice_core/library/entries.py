"""What a library tells of its concepts, and what it can be asked. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from ice_core.errors import IceError


@dataclass(frozen=True)
class Entry:
    """One concept. id: never used again; key: its name in prompts; score, area: of its mask, None where it
    has none; title, date: of the extraction; origin: where it came from; added: when, ISO 8601 in UTC;
    readings: by axis, as `readings_to_plain` has them."""

    id: int
    key: str
    label: str
    score: float | None
    area: float | None
    title: str
    date: str
    added: str
    origin: str
    base_name: str
    base_fingerprint: str
    architecture: str
    tags: tuple[str, ...]
    readings: Mapping[str, Mapping[str, Any]]

    @property
    def properties(self) -> dict[str, str]:
        """By axis, the word that was read of it; axes of which nothing fits are absent."""
        return {
            axis: one["candidates"][0]["value"]
            for axis, one in self.readings.items()
            if one["fits"] and one["candidates"]
        }

    @property
    def prompts(self) -> tuple[str, ...]:
        """Prompts to copy: the whole object, its kind, each of its properties."""
        parts = ("object", *self.properties)
        return (f"a photo of a {{{self.key}}}", *(f"{{{self.key}.{part}}}" for part in parts))


@dataclass(frozen=True)
class Hit:
    """A concept that was found. score: cosine for a picture, BM25 for words, probability of the reading for a
    property (each: more is better); 0 where nothing ranks."""

    entry: Entry
    score: float = 0.0


@dataclass(frozen=True)
class Query:
    """What is looked for; everything that is given must hold.

    words: each must begin a word of label, readings, tags, title or base model. base: part of the family's
    name, such as "stable-diffusion-xl"; tags: all of them; has: words by axis that were read; same: an axis,
    and the concept whose value on it is wanted. since, until: days as 2026-05-31, both included, on which it
    was added. key: its name in prompts; capital letters do not count. limit, offset: the page.

    Raises IceError for a day or a page that cannot be.
    """

    words: str = ""
    base: str = ""
    tags: tuple[str, ...] = ()
    has: Mapping[str, str] = field(default_factory=dict)
    same: tuple[str, int] | None = None
    since: str = ""
    until: str = ""
    limit: int = 50
    offset: int = 0
    key: str = ""

    def __post_init__(self) -> None:
        for day in (self.since, self.until):
            try:
                if day:
                    date.fromisoformat(day)
            except ValueError:
                raise IceError(f"{day!r} is no day; write for example 2026-05-31") from None
        if self.limit < 1 or self.offset < 0:
            raise IceError(f"a page of {self.limit} from {self.offset} on; ask for 1 or more, from 0 on")


@dataclass(frozen=True)
class Overview:
    """What there is to choose from, each with its number of concepts, the most frequent first.

    families: of base models; values: by axis, the words that were read.
    """

    concepts: int
    families: Mapping[str, int]
    values: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Checked:
    """What `check` found. removed: files that a crash left, which are gone now; problems: what it cannot
    mend, with the remedy."""

    concepts: int
    sets: int
    removed: tuple[str, ...]
    problems: tuple[str, ...]
