"""Write the shipped vocabulary anew: `python tools/make_vocabulary.py --lvis FILE [--wordnet FOLDER]`.

Names of visible things come from ImageNet-21k and LVIS, ordered by how usual they are, with finer names below
the plain ones (`vocabulary/names.py`). Words that only describe are single tokens of CLIP's byte-pair
vocabulary that WordNet knows. FOLDER holds WordNet 3.0's index.*, data.* and cntlist.rev; Debian's package
`wordnet-base` puts them into the default folder. FILE is lvis_v1_categories.py of detectron2
(detectron2/data/datasets, Apache 2.0).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from vocabulary.choices import BODY_PARTS, PEOPLE, SLURS, UNSAID
from vocabulary.names import Names, Sources, is_nameable, visible_names
from vocabulary.usage import clip_words, rank
from vocabulary.wordnet import BODILY, WordNet

from ice_core.localization.vocabulary import BODY, DESCRIBES, FINER, LICENCE_FILE, NAMES, WORDS_FILE

Named = TypeVar("Named", str, tuple[str, str])

HEADER = f"""\
# Words that may explain a picture: `word<TAB>what it does<TAB>plain name above it<TAB>what it means`.
# {NAMES}: names a thing, most usual first. {DESCRIBES}: only describes one. {FINER}: a finer name of the
# plain one. {BODY}: a part of the body, only used on request. Made by tools/make_vocabulary.py.
# Sources: WordNet 3.0, Copyright 2006 by Princeton University (WORDNET_LICENSE.txt); the list of ImageNet-21k
# (image-net.org) in timm (Apache 2.0); categories of LVIS v1 (CC BY 4.0, lvisdataset.org); the byte pairs of
# OpenAI's CLIP (MIT).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--lvis", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--output", type=Path, default=Path("ice_core/localization/vocabulary"))
    options = parser.parse_args()

    wordnet = WordNet.read(options.wordnet)
    rude = rude_words(wordnet) | set(UNSAID)
    names = visible_names(Sources.read(wordnet, options.lvis))
    rows = name_rows(names, rude, wordnet)
    rows += body_rows(wordnet, {row[0] for row in rows})
    taken = {row[0] for row in rows}
    rows += [(w, DESCRIBES, "", "") for w in clip_words() if wordnet.knows(w) and w not in taken | rude]
    rows.sort(key=lambda row: (NAMES + DESCRIBES + FINER + BODY).index(row[1]))
    lines = ["\t".join(row).rstrip("\t") + "\n" for row in rows]
    (options.output / WORDS_FILE).write_text(HEADER + "".join(lines), encoding="utf-8", newline="\n")
    notice = (options.wordnet / "data.noun").read_text("latin-1").splitlines()[:29]
    (options.output / LICENCE_FILE).write_text(
        "".join(line.lstrip(" 0123456789").rstrip() + "\n" for line in notice), encoding="utf-8", newline="\n"
    )
    kinds = [row[1] for row in rows]
    print(", ".join(f"{kinds.count(kind)} {kind}" for kind in (NAMES, DESCRIBES, FINER, BODY)))


def rude_words(wordnet: WordNet) -> set[str]:
    """Words that some sense marks as a slur."""
    slurs = {wordnet.sense(name) for name in SLURS}
    return {
        lemma.lower()
        for synsets in wordnet.synsets.values()
        for synset in synsets.values()
        if not slurs.isdisjoint(synset.usages)
        for lemma in synset.lemmas
    }


def name_rows(names: Names, rude: set[str], wordnet: WordNet) -> list[tuple[str, str, str, str]]:
    """Rows of names, most usual first; a name that several things share stands once, plain if any is."""
    meaning = {offset: synset.definition for offset, synset in wordnet.synsets["noun"].items()}
    plain = {"person": ""} | {
        name: meaning[offset] for offset, name in _by_usage(names.plain.items()) if can_be_said(name, rude)
    }
    finer: dict[str, tuple[str, str]] = dict.fromkeys(PEOPLE, ("person", ""))
    others = {*plain, *names.others, *(w for w in clip_words() if not is_nameable(w, wordnet, ()))}
    for offset, (name, above) in _by_usage(names.finer.items()):
        # "blue" is a butterfly too, but first of all a color.
        if can_be_said(name, rude) and name not in others and names.plain[above] in plain:
            finer.setdefault(name, (names.plain[above], meaning[offset]))
    rows = [(name, NAMES, "", means) for name, means in sorted(plain.items(), key=lambda x: rank(x[0]))]
    return rows + [(name, FINER, above, means) for name, (above, means) in finer.items()]


def _by_usage(items: Iterable[tuple[str, Named]]) -> list[tuple[str, Named]]:
    return sorted(items, key=lambda item: rank(item[1] if isinstance(item[1], str) else item[1][0]))


def can_be_said(name: str, rude: set[str]) -> bool:
    """Whether a name is printable ASCII that can be a file's name, and nobody's slur."""
    return re.fullmatch(r"[a-z0-9][a-z0-9' .-]*", name) is not None and rude.isdisjoint(
        {name, *re.split("[ -]", name)}
    )


def body_rows(wordnet: WordNet, taken: set[str]) -> list[tuple[str, str, str, str]]:
    """Parts of the body that are not there under the same name as something else."""
    words = [word for word in BODY_PARTS if word not in taken]
    parts = {word: [s.definition for s in wordnet.nouns(word) if s.lexicographer in BODILY] for word in words}
    return [(word, BODY, "", means[0] if means else "") for word, means in parts.items()]


if __name__ == "__main__":
    main()
