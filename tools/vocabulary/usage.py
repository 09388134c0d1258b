"""How usual a name is, by the order in which CLIP's byte pairs were merged (Radford et al. 2021).

The merges are ordered by how often captions held them. Those of few letters are mostly ends of longer
words ("ant", "ell"), so that a short word counts as its plural does.
"""

from __future__ import annotations

import gzip
import re
from functools import cache
from pathlib import Path

from open_clip.tokenizer import default_bpe

UNUSUAL = 30_000
"""The rank of what is no single token."""
_SHORT = 4
_NEVER_MANY = 12_000
_PHRASE = 1_000


@cache
def clip_words() -> tuple[str, ...]:
    """Whole words of three letters and more that are one token to CLIP, most frequent first."""
    text = gzip.decompress(Path(default_bpe()).read_bytes()).decode("utf-8")
    merges = text.split("\n")[1 : 49152 - 256 - 2 + 1]
    joined = (merge.replace(" ", "") for merge in merges)
    whole = (w.removesuffix("</w>") for w in joined if re.fullmatch(r"[a-z]{3,}</w>", w))
    return tuple(dict.fromkeys(whole))


@cache
def _ranks() -> dict[str, int]:
    return {word: rank for rank, word in enumerate(clip_words())}


def rank(name: str) -> int:
    """Of a word 0 for the most usual, at most `UNUSUAL`; a phrase counts as a good deal less usual than its
    rarest word."""
    words = re.split("[ -]", name)
    rarest = max(map(_word_rank, words))
    return rarest if len(words) == 1 else min(_PHRASE + 2 * rarest, UNUSUAL)


def _word_rank(word: str) -> int:
    own = _ranks().get(word, UNUSUAL)
    return own if len(word) > _SHORT else max(own, _ranks().get(_plural(word), _NEVER_MANY))


def _plural(word: str) -> str:
    if re.search("(s|x|z|ch|sh)$", word):
        return word + "es"
    return word[:-1] + "ies" if re.search("[^aeiou]y$", word) else word + "s"
