"""The words that may explain a picture, and their embeddings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ice_core.concepts import unit
from ice_core.errors import IceError
from ice_core.localization.retrieval.cache import (
    default_cache_folder,
    read_embeddings,
    write_embeddings,
)
from ice_core.localization.retrieval.towers import TEXTS_AT_ONCE, ImageTextModel
from ice_core.localization.vocabulary import BODY, DESCRIBES, FINER, NAMES, WORDS_FILE


@dataclass(frozen=True)
class Vocabulary:
    """Words, and for each whether it names a thing (or only explains one: red, metal, shiny).

    finer: by plain name, what a thing of that name may be more exactly ("dog": "golden retriever", ...);
    definitions: by name, plain or finer, what it means.
    """

    words: tuple[str, ...]
    nameable: tuple[bool, ...]
    finer: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    definitions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.words:
            raise IceError("the vocabulary is empty; give one word per line, or words with commas between")
        if len(self.words) != len(self.nameable):
            raise IceError(f"{len(self.words)} words with {len(self.nameable)} flags; give one flag per word")

    @classmethod
    def built_in(cls, body_parts: bool = False) -> Vocabulary:
        """About 1 400 plain names of visible things, most usual first, 11 000 English words that describe,
        and 12 000 finer names.

        Things are those of ImageNet-21k and LVIS, words are single tokens of CLIP. body_parts: with hands,
        eyes, tails and the like, which otherwise would be found on every person and animal.
        """
        text = (resources.files("ice_core.localization.vocabulary") / WORDS_FILE).read_text(encoding="utf-8")
        rows = [(*line.split("\t"), "", "")[:4] for line in text.splitlines() if not line.startswith("#")]
        names = (NAMES, BODY) if body_parts else (NAMES,)
        words = [(word, kind in names) for word, kind, _, _ in rows if kind in (*names, DESCRIBES)]
        finer: dict[str, list[str]] = {}
        for word, kind, plain, _ in rows:
            if kind == FINER:
                finer.setdefault(plain, []).append(word)
        return cls(
            tuple(word for word, _ in words),
            tuple(nameable for _, nameable in words),
            {plain: tuple(below) for plain, below in finer.items()},
            {word: definition for word, _, _, definition in rows if definition},
        )

    @classmethod
    def from_text(cls, text: str) -> Vocabulary:
        """The user's own words or phrases, one per line or with commas between; all may name a thing.

        Empty and repeated entries are dropped. Raises IceError when nothing is left.
        """
        pieces = (" ".join(piece.split()) for piece in re.split(r"[,\n]", text))
        # CLIP reads everything in small letters, so that "Ball" repeats "ball".
        words = {piece.lower(): piece for piece in reversed(list(pieces)) if piece}
        ordered = tuple(reversed(words.values()))
        return cls(ordered, (True,) * len(ordered))

    @classmethod
    def from_file(cls, path: Path) -> Vocabulary:
        """`from_text` of a UTF-8 file. Raises IceError, too, for one that cannot be read."""
        try:
            return cls.from_text(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise IceError(f"cannot read the words in {path}: {error}") from error

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the words in order, with their flags."""
        rows = zip(self.words, self.nameable, strict=True)
        return hashlib.sha256("\n".join(f"{w}\t{int(n)}" for w, n in rows).encode()).hexdigest()


@dataclass(frozen=True)
class Dictionary:
    """Embeddings of a vocabulary, [V, D] each, float32, CPU.

    raw: unit text embeddings; centred: the same minus their mean, unit again (SpLiCE, section 4).
    """

    vocabulary: Vocabulary
    raw: Tensor
    centred: Tensor

    @classmethod
    def from_embeddings(cls, vocabulary: Vocabulary, raw: Tensor) -> Dictionary:
        """A single word has nothing to be centred against and stays as it is."""
        return cls(vocabulary, raw, unit(raw - raw.mean(0)) if len(raw) > 1 else raw)


def build_dictionary(
    model: ImageTextModel, vocabulary: Vocabulary, cache_folder: Path | None = None, template: str = "{}"
) -> Dictionary:
    """`embed_vocabulary` in one go."""
    parts = embed_vocabulary(model, vocabulary, cache_folder, template)
    while True:
        try:
            next(parts)
        except StopIteration as end:
            return cast(Dictionary, end.value)


def embed_vocabulary(
    model: ImageTextModel, vocabulary: Vocabulary, cache_folder: Path | None = None, template: str = "{}"
) -> Generator[int, None, Dictionary]:
    """Embed every word put into `template`, or read what an earlier call with the same model, words and
    template left in `cache_folder` (None: the user's cache folder). A damaged file is written anew; a
    folder that cannot be written to costs time, nothing else.

    Yields how many words are embedded so far; nothing where they are read. Returns the dictionary.
    """
    key = hashlib.sha256(
        "\n".join((model.fingerprint, vocabulary.fingerprint, template)).encode()
    ).hexdigest()
    path = (cache_folder or default_cache_folder()) / f"dictionary-{key[:32]}.safetensors"
    texts = [template.format(word) for word in vocabulary.words]
    raw = read_embeddings(path, key, len(texts))
    if raw is None:
        parts = []
        yield 0
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            parts.append(model.encode_texts(texts[start : start + TEXTS_AT_ONCE]).cpu())
            yield min(start + TEXTS_AT_ONCE, len(texts))
        raw = unit(torch.cat(parts))
        write_embeddings(path, key, raw)
    return Dictionary.from_embeddings(vocabulary, raw)
