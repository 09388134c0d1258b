"""Write the shipped vocabulary anew: `python tools/make_vocabulary.py [--wordnet FOLDER]`.

Words are single tokens of CLIP's byte-pair vocabulary (Radford et al. 2021, shipped inside open_clip and
ordered by frequency) that WordNet 3.0 (Fellbaum 1998) knows. FOLDER holds WordNet's index.*, data.* and
cntlist.rev; Debian's package `wordnet-base` puts them into the default folder.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from open_clip.tokenizer import default_bpe

from ice_core.localization.vocabulary import LICENCE_FILE, WORDS_FILE

PARTS = ("noun", "verb", "adj", "adv")
LETTERS = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}

THINGS = (5, 6, 8, 13, 17, 20, 25)
"""Lexicographer classes (lexnames(5WN)): animal, artifact, body, food, object, plant, shape."""

PERSON, ATTRIBUTE, SUBSTANCE = 18, 7, 27

CLOTH_AND_PICTURES = ("fabric", "picture", "photograph")
"""Artifacts that are materials or the medium itself; the first sense of each, with all below it."""

UNKIND = ("wrongdoer", "unpleasant_person", "unwelcome_person", "simpleton", "fool", "slave", "prostitute")
"""Persons whom a program should not name in a photograph: first senses, with all below them."""

SLURS = ("ethnic_slur", "disparagement", "obscenity")
"""Usage domains whose words are left out altogether."""

ALWAYS_NAMEABLE = ("bear", "coin", "kite", "mug", "ring", "sign", "sink", "watch")
"""Things that WordNet's tagged texts (news and fiction of the 1960s) know rather as something else."""


@dataclass(frozen=True)
class Synset:
    offset: str
    lexicographer: int
    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]
    usages: tuple[str, ...]


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
        return [self.synsets["noun"][offset] for offset in self.senses["noun"].get(word, ())]

    def below(self, word: str) -> set[str]:
        """Offsets of the first noun sense of `word` and everything below it."""
        found, size = {self.senses["noun"][word][0]}, 0
        while size != len(found):
            size = len(found)
            found |= {o for o, s in self.synsets["noun"].items() if not found.isdisjoint(s.hypernyms)}
        return found

    def knows(self, word: str) -> bool:
        """Whether `word` is more than a name: some sense writes it in small letters."""
        return any(
            word in self.synsets[part][offset].lemmas
            for part in PARTS
            for offset in self.senses[part].get(word, ())
        )


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
    return fields[0], Synset(fields[0], int(fields[1]), lemmas, hypernyms, usages)


def clip_words() -> list[str]:
    """Whole words of three letters and more that are one token to CLIP, most frequent first."""
    text = gzip.decompress(Path(default_bpe()).read_bytes()).decode("utf-8")
    merges = text.split("\n")[1 : 49152 - 256 - 2 + 1]
    joined = (merge.replace(" ", "") for merge in merges)
    return [w.removesuffix("</w>") for w in joined if re.fullmatch(r"[a-z]{3,}</w>", w)]


def is_nameable(word: str, wordnet: WordNet, left_out: set[str]) -> bool:
    """Whether the word by itself names a thing that one could point at.

    Its commonest noun sense is a thing or a person; or the next one is a thing, unless the commonest is
    a property (glass and rubber are materials first). Adjectives may not be commoner than the noun, and
    verbs not much commoner, since CLIP mostly sees the noun in a word like "train".
    """
    first, second = (*wordnet.nouns(word), None, None)[:2]
    tags = wordnet.tags.get(word, Counter())
    if first is None or word not in first.lemmas or first.offset in left_out or tags["adj"] > tags["noun"]:
        return False
    if first.lexicographer in (*THINGS, PERSON):
        return tags["verb"] <= 4 * tags["noun"] + 12
    return (
        first.lexicographer not in (ATTRIBUTE, SUBSTANCE)
        and second is not None
        and second.lexicographer in THINGS
        and word in second.lemmas
        and second.offset not in left_out
        and tags["noun"] >= tags["verb"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--output", type=Path, default=Path("ice_core/localization/vocabulary"))
    options = parser.parse_args()

    wordnet = WordNet.read(options.wordnet)
    slurs = {wordnet.senses["noun"][s][0] for s in SLURS}
    rude = {
        lemma.lower()
        for synsets in wordnet.synsets.values()
        for s in synsets.values()
        if not slurs.isdisjoint(s.usages)
        for lemma in s.lemmas
    }
    left_out = set().union(*(wordnet.below(w) for w in (*CLOTH_AND_PICTURES, *UNKIND)))
    words = [w for w in dict.fromkeys(clip_words()) if wordnet.knows(w) and w not in rude]
    nameable = [w in ALWAYS_NAMEABLE or is_nameable(w, wordnet, left_out) for w in words]
    lines = [f"{word}\t{'n' if good else 'p'}\n" for word, good in zip(words, nameable, strict=True)]
    (options.output / WORDS_FILE).write_text("".join(lines), encoding="utf-8", newline="\n")
    notice = (options.wordnet / "data.noun").read_text("latin-1").splitlines()[:29]
    (options.output / LICENCE_FILE).write_text(
        "".join(line.lstrip(" 0123456789").rstrip() + "\n" for line in notice), encoding="utf-8", newline="\n"
    )
    print(f"{len(words)} words, {sum(nameable)} of them can name a thing")


if __name__ == "__main__":
    main()
