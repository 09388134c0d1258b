"""Which words name what a picture shows: Stage One, step 1 of ICE (arXiv 2503.19902, section 3.1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ice_core.concepts import unit
from ice_core.errors import IceError
from ice_core.localization.retrieval.dictionary import Dictionary, Vocabulary, embed_vocabulary
from ice_core.localization.retrieval.sparse import sparse_weights
from ice_core.localization.retrieval.towers import ImageTextModel

CentredBy = Literal["image_mean", "none"]

_BLACK = 0.5 / 255


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
    """weight: its share in the sparse decomposition; similarity: plain CLIP cosine with the picture."""

    label: str
    weight: float
    similarity: float


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

    image_mean: [D], mean of unit image embeddings of the model (`estimate_image_mean`), or None to leave
    pictures uncentred; cache_folder: where the dictionary is kept (None: the user's cache folder).
    """

    def __init__(
        self,
        model: ImageTextModel,
        vocabulary: Vocabulary,
        config: RetrievalConfig | None = None,
        image_mean: Tensor | None = None,
        cache_folder: Path | None = None,
    ) -> None:
        self.model, self.vocabulary = model, vocabulary
        self.config = config or RetrievalConfig()
        self.image_mean, self.cache_folder = image_mean, cache_folder
        self._dictionary: Dictionary | None = None

    def prepare(self) -> Iterator[int]:
        """Make or read the dictionary, which takes a minute for some ten thousand words.

        Yields how many words are embedded so far; nothing where they are there already.
        """
        if self._dictionary is None:
            self._dictionary = yield from embed_vocabulary(
                self.model, self.vocabulary, self.cache_folder, self.config.template
            )

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
        _check(image)
        config, words = self.config, self.dictionary
        centred_by: CentredBy = "none" if self.image_mean is None else "image_mean"
        if image.amax() < _BLACK:
            return Retrieval((), (), config.penalty, centred_by)
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
        return Retrieval(
            self._ordered(allowed & (weights > 0), weights, similarity, by=similarity),
            self._ordered(weights > 0, weights, similarity, by=weights),
            penalty,
            centred_by,
        )

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
        assert self.image_mean is not None
        if self.image_mean.shape != z.shape[1:]:
            raise IceError(
                f"the image mean has shape {tuple(self.image_mean.shape)}, {self.model.name} makes "
                f"embeddings of {z.shape[1]}; estimate the mean with this model"
            )
        return self.image_mean.float().cpu()

    def _ordered(
        self, kept: Tensor, weights: Tensor, similarity: Tensor, by: Tensor
    ) -> tuple[Retrieved, ...]:
        indices = kept.nonzero()[:, 0]
        indices = indices[by[indices].argsort(descending=True, stable=True)]
        rows = zip(indices.tolist(), weights[indices].tolist(), similarity[indices].tolist(), strict=True)
        return tuple(Retrieved(self.vocabulary.words[i], w, s) for i, w, s in rows)


def estimate_image_mean(model: ImageTextModel, images: Iterable[Tensor]) -> Tensor:
    """Mean [D] of the unit embeddings of pictures [3, H, W] in 0..1, which may differ in size."""
    embeddings = []
    for image in images:
        _check(image)
        embeddings.append(model.encode_images(image[None]).float().cpu())
    if not embeddings:
        raise IceError("no pictures to estimate the image mean from; give a handful of varied ones")
    return torch.cat(embeddings).mean(0)


def _check(image: Tensor) -> None:
    if image.ndim != 3 or image.shape[0] != 3:
        raise IceError(f"a picture of shape {tuple(image.shape)}; [3, height, width] is needed")
    if not image.isfinite().all():
        raise IceError("the picture holds values that are not numbers (NaN or infinite); load it again")
