"""WordNet 3.0 (Fellbaum 1998) as far as a word list needs it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PARTS = ("noun", "verb", "adj", "adv")
LETTERS = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}

THINGS = (5, 6, 8, 13, 17, 20, 25)
"""Lexicographer classes (lexnames(5WN)): animal, artifact, body, food, object, plant, shape."""

BODILY = (8, 5)
"""Where parts of people and of animals are."""

PERSON, ATTRIBUTE, SUBSTANCE = 18, 7, 27


@dataclass(frozen=True)
class Synset:
    offset: str
    lexicographer: int
    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]
    usages: tuple[str, ...]
    definition: str


@dataclass(frozen=True)
class WordNet:
    """senses: part -> lemma -> synset offsets, most frequent first; synsets: part -> offset -> synset;
    tags: lemma -> part -> how often the tagged texts have it."""

    senses: dict[str, dict[str, tuple[str, ...]]]
    synsets: dict[str, dict[str, Synset]]
    tags: dict[str, Counter[str]]

    @classmethod
    def read(cls, folder: Path) -> WordNet:
        tags: dict[str, Counter[str]] = defaultdict(Counter)
        for line in (folder / "cntlist.rev").read_text("latin-1").splitlines():
            key, _, count = line.split()
            lemma, rest = key.split("%")
            tags[lemma][LETTERS[rest[0]]] += int(count)
        return cls(
            {p: dict(map(_index_entry, _entries(folder / f"index.{p}"))) for p in PARTS},
            {p: dict(map(_synset, _entries(folder / f"data.{p}"))) for p in PARTS},
            dict(tags),
        )

    def nouns(self, word: str) -> list[Synset]:
        """Senses as a noun, most frequent first; of names the lemmas are in capitals."""
        return [self.synsets["noun"][offset] for offset in self.senses["noun"].get(_lemma(word), ())]

    def sense(self, name: str) -> str | None:
        """Offset of "dog", or of the second sense in "plant.2"; None for what it does not know."""
        numbered = re.fullmatch(r"(.+)\.(\d+)", name)
        word, index = (numbered[1], int(numbered[2]) - 1) if numbered else (name, 0)
        offsets = self.senses["noun"].get(_lemma(word), ())
        return offsets[index] if index < len(offsets) else None

    def below(self, name: str) -> set[str]:
        """Offsets of a noun sense ("dog", "plant.2") and everything below it."""
        top = self.sense(name)
        if top is None:
            raise KeyError(f"WordNet has no noun {name}")
        found, todo = {top}, [top]
        for offset in todo:
            new = self._hyponyms.get(offset, set()) - found
            found |= new
            todo += new
        return found

    def above(self, offset: str) -> dict[str, int]:
        """The noun synset itself and all above it, with the least number of steps to each."""
        steps, todo = {offset: 0}, [offset]
        for one in todo:
            for upper in self.synsets["noun"][one].hypernyms:
                if upper not in steps:
                    steps[upper] = steps[one] + 1
                    todo.append(upper)
        return steps

    @cached_property
    def _hyponyms(self) -> dict[str, set[str]]:
        lower = defaultdict(set)
        for offset, synset in self.synsets["noun"].items():
            for upper in synset.hypernyms:
                lower[upper].add(offset)
        return lower

    def knows(self, word: str) -> bool:
        """Whether `word` is more than a name: some sense writes it in small letters."""
        return any(
            word in self.synsets[part][offset].lemmas
            for part in PARTS
            for offset in self.senses[part].get(word, ())
        )


def _lemma(word: str) -> str:
    return word.lower().replace(" ", "_")


def _entries(path: Path) -> Iterable[list[str]]:
    return (x.split() for x in path.read_text("latin-1").splitlines() if not x.startswith(" "))


def _index_entry(fields: list[str]) -> tuple[str, tuple[str, ...]]:
    """`lemma part senses ... offset offset ..` (wndb(5WN))."""
    return fields[0], tuple(fields[-int(fields[2]) :])


def _synset(fields: list[str]) -> tuple[str, Synset]:
    """`offset class type words (word id).. pointers (symbol offset part source).. ..` (wndb(5WN))."""
    end = 4 + 2 * int(fields[3], 16)
    lemmas = tuple(re.sub(r"\(.*\)", "", w) for w in fields[4:end:2])
    pointers = [fields[i : i + 2] for i in range(end + 1, end + 1 + 4 * int(fields[end]), 4)]
    hypernyms = tuple(offset for symbol, offset in pointers if symbol in ("@", "@i"))
    usages = tuple(offset for symbol, offset in pointers if symbol == ";u")
    gloss = " ".join(fields[fields.index("|") + 1 :])
    # Uses of the word in sentences follow the definition.
    definition = re.split(r'; "|^"', gloss)[0]
    return fields[0], Synset(fields[0], int(fields[1]), lemmas, hypernyms, usages, definition)
