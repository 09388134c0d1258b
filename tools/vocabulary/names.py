"""Plain names of visible things, and the finer ones below each.

Which things there are say ImageNet-21k (Deng et al. 2009, as timm lists it) and LVIS (Gupta et al. 2019);
what lies above what says WordNet. A plain name is one that a person would type: "dog" and not "golden
retriever".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from vocabulary.choices import ABSTRACT, ALWAYS_PLAIN, LEFT_OUT, NO_PLAIN_NAMES, RENAMED
from vocabulary.usage import rank
from vocabulary.wordnet import ATTRIBUTE, PERSON, SUBSTANCE, THINGS, Synset, WordNet

_USUAL = 8_000
"""A single word up to this rank is one that people type."""
_KNOWN = 20_000
_FAR = 3
"""How much more usual another name must be to be taken instead of LVIS's own."""


@dataclass(frozen=True)
class LvisCategory:
    """names: as LVIS writes them, its own first; frequency: "f", "c" or "r", by pictures that show it."""

    names: tuple[str, ...]
    frequency: str


@dataclass(frozen=True)
class Sources:
    """lvis: synset offset -> category; lemmas: of ImageNet-21k, offset -> lemmas; common: offsets that
    ImageNet-12k kept, which have pictures enough to be seen; usual: those of ImageNet-1k."""

    wordnet: WordNet
    lvis: Mapping[str, LvisCategory]
    lemmas: Mapping[str, tuple[str, ...]]
    common: frozenset[str]
    usual: frozenset[str]

    @classmethod
    def read(cls, wordnet: WordNet, lvis: Path) -> Sources:
        return cls(wordnet, _lvis(wordnet, lvis), *_imagenet())

    @cached_property
    def offsets(self) -> tuple[str, ...]:
        """Every thing that has a name, without people."""
        every = dict.fromkeys([*self.lvis, *self.lemmas])
        return tuple(offset for offset in every if offset not in self.left_out)

    @cached_property
    def left_out(self) -> frozenset[str]:
        return frozenset().union(*(self.wordnet.below(name) for name in LEFT_OUT))

    @cached_property
    def always(self) -> Mapping[str, str]:
        """Offsets that are plain whatever the rules say -> their names."""
        return {self.wordnet.sense(name) or "": name.partition(".")[0] for name in ALWAYS_PLAIN}


def _lvis(wordnet: WordNet, path: Path) -> dict[str, LvisCategory]:
    """Categories of a Python file with the literal `LVIS_CATEGORIES`, as detectron2 (Apache 2.0) has it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assigned = (n for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name))
    rows = next(
        ast.literal_eval(n.value) for n in assigned if getattr(n.targets[0], "id", "") == "LVIS_CATEGORIES"
    )
    found = {}
    for row in rows:
        word, _, number = row["synset"].partition(".n.")
        if offset := wordnet.sense(f"{word}.{int(number)}"):
            found[offset] = LvisCategory((row["name"], *row["synonyms"]), row["frequency"])
    return found


def _imagenet() -> tuple[dict[str, tuple[str, ...]], frozenset[str], frozenset[str]]:
    from timm.data import ImageNetInfo

    every = ImageNetInfo("imagenet22k")
    lemmas = {
        every.index_to_label_name(n)[1:]: tuple(every.index_to_description(n).split(", "))
        for n in range(every.num_classes())
    }
    some = [ImageNetInfo(name) for name in ("imagenet12k", "imagenet1k")]
    common, usual = (
        frozenset(one.index_to_label_name(n)[1:] for n in range(one.num_classes())) for one in some
    )
    return lemmas, common, usual


@dataclass(frozen=True)
class Names:
    """plain: names by offset; finer: names by offset, and the offset whose plain name is above it; others:
    what plain things are called besides."""

    plain: Mapping[str, str]
    finer: Mapping[str, tuple[str, str]]
    others: frozenset[str]


def visible_names(sources: Sources) -> Names:
    """Every thing of the sources under its plain name; those for which there is none are left out."""
    rules = _Rules(sources)
    plain: dict[str, str] = dict(sources.always)
    finer = {}
    for offset in sources.offsets:
        above = rules.plain_above(offset)
        if above is not None:
            plain[above] = rules.name(above)
            if above != offset:
                finer[offset] = rules.name(offset), above
        elif rules.stands_alone(offset):
            plain[offset] = rules.name(offset)
    called = (x for offset in plain if offset in sources.lvis for x in sources.lvis[offset].names)
    return Names(plain, finer, frozenset(_clean(x).lower() for x in called))


class _Rules:
    def __init__(self, sources: Sources) -> None:
        self.sources, self.wordnet = sources, sources.wordnet
        self.name = lru_cache(None)(self._name)
        self.is_usual = lru_cache(None)(self._is_usual)
        self.is_plain = lru_cache(None)(self._is_plain)

    def plain_above(self, offset: str) -> str | None:
        """The nearest synset at or above that has a plain name."""
        steps = {one: n for one, n in self.wordnet.above(offset).items() if self.is_plain(one)}
        return min(steps, key=lambda one: steps[one]) if steps else None

    def stands_alone(self, offset: str) -> bool:
        """Whether a thing without plain names above it is one that people know and photographs show."""
        name = self.name(offset)
        seen = self.sources.usual if re.search("[ -]", name) else self.sources.common
        return offset in self.sources.usual or (
            offset in seen
            and self._synset(offset).lexicographer in THINGS
            and self._is_first_sense(name, offset)
            and rank(name) <= _KNOWN
            and name not in (*ABSTRACT, *NO_PLAIN_NAMES)
        )

    def _synset(self, offset: str) -> Synset:
        return self.wordnet.synsets["noun"][offset]

    def _is_first_sense(self, name: str, offset: str) -> bool:
        return self.wordnet.sense(name) == offset

    def _name(self, offset: str) -> str:
        if offset in self.sources.always:
            return self.sources.always[offset]
        if offset in self.sources.lvis:
            return _lvis_name(self.sources.lvis[offset])
        lemmas = self.sources.lemmas.get(offset) or self._synset(offset).lemmas
        every = list(dict.fromkeys(_clean(lemma) for lemma in lemmas))
        # "Limnocryptes minima" is a snipe's name for zoologists, "Angora goat" a goat's for everyone.
        spoken = [x for x in every if x == x.lower()] or [x for x in every if not _binomial(x)] or every
        meant = [x for x in spoken if self._is_first_sense(x, offset)] or spoken
        return min(meant, key=lambda x: rank(x.lower())).lower()

    def _is_usual(self, offset: str) -> bool:
        if offset in self.sources.left_out:
            return False
        name = self.name(offset)
        if name in (*ABSTRACT, *NO_PLAIN_NAMES):
            return False
        if offset in self.sources.lvis:
            return True
        return (
            re.fullmatch("[a-z]+", name) is not None
            and rank(name) <= _USUAL
            and self._is_first_sense(name, offset)
            and self._synset(offset).lexicographer in THINGS
            and is_nameable(name, self.wordnet, self.sources.left_out)
        )

    def _is_plain(self, offset: str) -> bool:
        if offset in self.sources.always:
            return True
        if not self.is_usual(offset):
            return False
        name, above = self.name(offset), [one for one in self.wordnet.above(offset) if one != offset]
        head = re.split("[ -]", name)[-1]
        if head != name and any(self.is_usual(one) and self.name(one) == head for one in above):
            return False
        # A rare category with an unusual name below one that is often seen: "dalmatian" is a dog.
        categories = self.sources.lvis
        if offset in categories and categories[offset].frequency == "r" and rank(name) > _USUAL:
            seen = (one for one in above if one in categories and self.is_usual(one))
            return all(categories[one].frequency == "r" for one in seen)
        return True


def _clean(name: str) -> str:
    return " ".join(re.sub(r"\(.*?\)", "", name).replace("_", " ").split())


def _binomial(name: str) -> bool:
    return re.fullmatch("[A-Z][a-z]+ [a-z]+", name) is not None


def _lvis_name(category: LvisCategory) -> str:
    """Its own name, unless hardly anyone types that and another one is far more usual; names that need an
    explanation in brackets cannot be that other one."""
    own = category.names[0]
    if own in RENAMED:
        return RENAMED[own]
    clear = [_clean(x).lower() for x in category.names if "(" not in x]
    name = _clean(own).lower()
    best = min(clear, key=rank, default=name)
    return best if rank(name) > _KNOWN and _FAR * rank(best) < rank(name) else name


def is_nameable(word: str, wordnet: WordNet, left_out: Iterable[str]) -> bool:
    """Whether the word by itself names a thing that one could point at.

    Its commonest noun sense is a thing or a person; or the next one is a thing, unless the commonest is
    a property (glass and rubber are materials first). Adjectives may not be commoner than the noun, and
    verbs not much commoner, since CLIP mostly sees the noun in a word like "train".
    """
    first, second = (*wordnet.nouns(word), None, None)[:2]
    tags = wordnet.tags.get(word, {})
    noun, verb, adjective = (tags.get(part, 0) for part in ("noun", "verb", "adj"))
    if first is None or word not in first.lemmas or first.offset in left_out or adjective > noun:
        return False
    if first.lexicographer in (*THINGS, PERSON):
        return verb <= 4 * noun + 12
    return (
        first.lexicographer not in (ATTRIBUTE, SUBSTANCE)
        and second is not None
        and second.lexicographer in THINGS
        and word in second.lemmas
        and second.offset not in left_out
        and noun >= verb
    )
