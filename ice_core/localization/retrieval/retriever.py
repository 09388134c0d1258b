"""Which words name what a picture shows: Stage One, step 1 of ICE (arXiv 2503.19902, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ice_core.concepts import Candidate, unit
from ice_core.errors import IceError
from ice_core.localization.retrieval.dictionary import (
    Dictionary,
    Vocabulary,
    build_dictionary,
    embed_vocabulary,
)
from ice_core.localization.retrieval.image_mean import check_image, photograph_mean
from ice_core.localization.retrieval.sparse import sparse_weights
from ice_core.localization.retrieval.towers import ImageTextModel

CentredBy = Literal["image_mean", "photographs", "none"]

_BLACK = 0.5 / 255
_LIKELY, _MOST_FINER = 0.1, 3
_WEIGHED = 200
"""Of a plain name so many finer ones are weighed, the most usual: there are 966 trees, and to embed them all
takes minutes without an accelerator."""


@dataclass(frozen=True)
class RetrievalConfig:
    """penalty: lambda of the decomposition; duplicate_cosine: a word whose text embedding is this close
    to a used label says the same; halvings: how often the penalty may be halved while no word is found
    (small models have weaker correlations than the ones of the papers); template: how a word is put to
    the text encoder."""

    penalty: float = 0.2
    duplicate_cosine: float = 0.85
    halvings: int = 6
    template: str = "{}"

    def __post_init__(self) -> None:
        if not self.penalty > 0:
            raise IceError(f"penalty is {self.penalty}; it must be above 0 (0.2 is usual)")
        if not -1 < self.duplicate_cosine <= 1:
            raise IceError(
                f"duplicate_cosine is {self.duplicate_cosine}; a cosine lies in -1..1 (0.85 is usual)"
            )
        if self.halvings < 0:
            raise IceError(f"halvings is {self.halvings}; it must be 0 or more")
        if self.template.count("{}") != 1:
            raise IceError(f"the template {self.template!r} must hold {{}} once, where the word goes")


@dataclass(frozen=True)
class Retrieved:
    """weight: its share in the sparse decomposition; similarity: plain CLIP cosine with the picture; finer:
    what it may be more exactly, likeliest first, said of the best name alone; definition: what a built-in
    name means."""

    label: str
    weight: float
    similarity: float
    finer: tuple[Candidate, ...] = ()
    definition: str | None = None


@dataclass(frozen=True)
class Retrieval:
    """candidates: names, most similar first; explanation: every word with weight > 0, heaviest first,
    also those that are properties or repeat a used label; penalty: the one that was used; centred_by:
    what was subtracted from the picture's embedding."""

    candidates: tuple[Retrieved, ...]
    explanation: tuple[Retrieved, ...]
    penalty: float
    centred_by: CentredBy


class Retriever:
    """Explains pictures by words.

    image_mean: [D], mean of unit image embeddings of the model, "photographs" for that of the photographs in
    `image_mean.py`, or None to leave pictures uncentred; cache_folder: where the dictionary and the mean are
    kept (None: the user's cache folder).
    """

    def __init__(
        self,
        model: ImageTextModel,
        vocabulary: Vocabulary,
        config: RetrievalConfig | None = None,
        image_mean: Tensor | Literal["photographs"] | None = None,
        cache_folder: Path | None = None,
    ) -> None:
        self.model, self.vocabulary = model, vocabulary
        self.config = config or RetrievalConfig()
        self.image_mean, self.cache_folder = image_mean, cache_folder
        self._dictionary: Dictionary | None = None
        self._photographs: Tensor | None = None

    def prepare(self) -> Iterator[int]:
        """Make or read the dictionary, which takes a minute for some ten thousand words, and the image mean.

        Yields how many words are embedded so far; nothing where they are there already.
        """
        if isinstance(self.image_mean, str) and self._photographs is None:
            yield 0
            self._photographs = photograph_mean(self.model, self.cache_folder)
        if self._dictionary is None:
            self._dictionary = yield from embed_vocabulary(
                self.model, self.vocabulary, self.cache_folder, self.config.template
            )

    @property
    def centred_by(self) -> CentredBy:
        """What is subtracted from pictures' embeddings."""
        if self.image_mean is None:
            return "none"
        return "photographs" if isinstance(self.image_mean, str) else "image_mean"

    @property
    def dictionary(self) -> Dictionary:
        """Word embeddings; made or read on first use, or by `prepare`."""
        for _ in self.prepare():
            pass
        assert self._dictionary is not None
        return self._dictionary

    def retrieve(self, image: Tensor, used: Sequence[str] = ()) -> list[Retrieved]:
        """Names for what a picture [3, H, W] in 0..1 shows, best first, none that repeats a used label.

        Empty when the picture is black or nothing is found. Raises IceError for a picture of another
        shape or with values that are not numbers.
        """
        return list(self.explain(image, used).candidates)

    def explain(self, image: Tensor, used: Sequence[str] = ()) -> Retrieval:
        """What `retrieve` returns and how it came about."""
        check_image(image)
        config, words = self.config, self.dictionary
        if image.amax() < _BLACK:
            return Retrieval((), (), config.penalty, self.centred_by)
        z = self.model.encode_images(image[None]).float().cpu()
        similarity = (z @ words.raw.T)[0]
        allowed = torch.tensor(self.vocabulary.nameable) & ~self._repeats(used)
        target = z if self.image_mean is None else unit(z - self._mean(z))
        penalty = config.penalty
        for _ in range(config.halvings + 1):
            weights = sparse_weights(target, words.centred, penalty)[0]
            if (allowed & (weights > 0)).any():
                break
            penalty /= 2
        else:
            penalty *= 2
        names = self._ordered(allowed & (weights > 0), weights, similarity, by=similarity)
        if names:
            names = (replace(names[0], finer=self._finer(z, names[0].label)), *names[1:])
        return Retrieval(
            names,
            self._ordered(weights > 0, weights, similarity, by=weights),
            penalty,
            self.centred_by,
        )

    def _finer(self, z: Tensor, label: str) -> tuple[Candidate, ...]:
        """Finer names of a plain one for an embedding [1, D], by the softmax that CLIP was trained with over
        them and the plain name; those that are likelier than one in ten."""
        below = self.vocabulary.finer.get(label, ())[:_WEIGHED]
        if not below:
            return ()
        names = Vocabulary((label, *below), (True,) * (1 + len(below)))
        dictionary = build_dictionary(self.model, names, self.cache_folder, self.config.template)
        weights = (self.model.scale * z @ dictionary.raw.T)[0].softmax(0)
        ordered = weights.argsort(descending=True, stable=True).tolist()
        likely = [n for n in ordered if n and weights[n] > _LIKELY]
        return tuple(Candidate(names.words[n], weights[n].item()) for n in likely[:_MOST_FINER])

    def _repeats(self, used: Sequence[str]) -> Tensor:
        """Which words [V] say the same as a used label."""
        if not used:
            return torch.zeros(len(self.vocabulary.words), dtype=torch.bool)
        labels = self.model.encode_texts([self.config.template.format(label) for label in used])
        cosine = self.dictionary.raw @ unit(labels).cpu().T
        # A word is its own repetition, whatever rounding makes of the cosine.
        same = torch.tensor([word in used for word in self.vocabulary.words])
        return same | (cosine >= self.config.duplicate_cosine).any(1)

    def _mean(self, z: Tensor) -> Tensor:
        mean = self._photographs if isinstance(self.image_mean, str) else self.image_mean
        assert mean is not None
        if mean.shape != z.shape[1:]:
            raise IceError(
                f"the image mean has shape {tuple(mean.shape)}, {self.model.name} makes "
                f"embeddings of {z.shape[1]}; estimate the mean with this model"
            )
        return mean.float().cpu()

    def _ordered(
        self, kept: Tensor, weights: Tensor, similarity: Tensor, by: Tensor
    ) -> tuple[Retrieved, ...]:
        indices = kept.nonzero()[:, 0]
        indices = indices[by[indices].argsort(descending=True, stable=True)]
        rows = zip(indices.tolist(), weights[indices].tolist(), similarity[indices].tolist(), strict=True)
        found = (Retrieved(self.vocabulary.words[i], w, s) for i, w, s in rows)
        return tuple(replace(one, definition=self.vocabulary.definitions.get(one.label)) for one in found)
