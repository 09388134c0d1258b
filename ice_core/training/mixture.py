"""A token's rows as a mixture of words' rows and a residual: directions are learned, norms are words'.

Sources: mixtures of words at the vocabulary's norm, CusConcept (arXiv 2410.00398); directions only, since
inversion fails by growing norms, DTI (arXiv 2512.13672); other properties' spans taken out of a residual,
CSD-VAR (arXiv 2507.13984).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.model.backbone import Backbone, Token

_LEAST_WEIGHT = 0.02
"""Of the first word at the start, so that a mixture is never of nothing."""
_MOST_DEGREE = 0.5
"""Of a word that says how much: a token that is more of it than of its value would lose the value."""
_NEGLIGIBLE = 1e-3
"""Singular values below this share of the largest are rounding."""


@dataclass(frozen=True)
class Mixture:
    """What a token starts from.

    words: their rows by encoder, [k, n, D] for k words of n pieces; start: their weights [k], of sum 1;
    forbidden: orthonormal directions [r, D] by encoder that a residual keeps out of; opposites: which of the
    words are pairs, of which a mixture holds one or the other.
    """

    name: str
    words: Mapping[str, Tensor]
    start: Tensor
    forbidden: Mapping[str, Tensor]
    opposites: tuple[tuple[int, int], ...] = ()

    @property
    def rows(self) -> int:
        """How many the token has, for every encoder."""
        return max(words.shape[1] for words in self.words.values())

    def one_of_each_pair(self, weights: Tensor) -> Tensor:
        """Weights [k] in which a pair of opposites has one that counts, at most half of all; what is left of
        both goes to the first word."""
        single = weights.clone()
        for low, high in self.opposites:
            degree = (weights[high] - weights[low]).clamp(-_MOST_DEGREE, _MOST_DEGREE)
            single[low], single[high] = (-degree).clamp(min=0), degree.clamp(min=0)
            single[0] += weights[low] + weights[high] - degree.abs()
        return single

    def still(self) -> dict[str, Tensor]:
        """Residuals that move nothing."""
        return {encoder: torch.zeros_like(words[0]) for encoder, words in self.words.items()}

    def token(self, weights: Tensor, residuals: Mapping[str, Tensor]) -> Token:
        """The token of weights [k] of sum 1, of which some may be negative, and of residual directions
        {encoder: [n, D]}. Its norms are those of the words that it goes towards."""
        rows = {}
        for encoder, words in self.words.items():
            direction = self.direction(encoder, weights)
            moved = F.normalize(direction + self.allowed(encoder, residuals[encoder]), dim=-1)
            shares = weights.clamp(min=0)
            norms = torch.einsum("k,kn->n", shares / shares.sum(), words.norm(dim=-1))
            rows[encoder] = norms[:, None] * moved
        return Token(self.name, rows)

    def direction(self, encoder: str, weights: Tensor) -> Tensor:
        """Unit directions [n, D] of the mixture alone."""
        return F.normalize(torch.einsum("k,knd->nd", weights, self.words[encoder]), dim=-1)

    def allowed(self, encoder: str, residual: Tensor) -> Tensor:
        """A residual [n, D] without what lies in the forbidden directions."""
        basis = self.forbidden[encoder]
        return residual - residual @ basis.T @ basis


def mixture_of(
    backbone: Backbone,
    name: str,
    words: Sequence[str],
    weights: Sequence[float],
    forbidden: Mapping[str, Tensor],
    rows: int = 1,
    degrees: Sequence[tuple[str, str]] = (),
) -> Mixture:
    """A mixture of the first word and of those others that have as many pieces, whose rows then match.

    weights: of the words, 0 or more; rows: at least so many rows, the pieces in turn; degrees: pairs of
    opposite words that it may hold besides.
    """
    pieces = [backbone.word_rows(word) for word in words]
    alike = [i for i, p in enumerate(pieces) if _lengths(p) == _lengths(pieces[0])]
    opposites = []
    for pair in degrees:
        both = [backbone.word_rows(word) for word in pair]
        if all(_lengths(p) == _lengths(pieces[0]) for p in both):
            opposites.append((len(alike), len(alike) + 1))
            alike += [len(pieces), len(pieces) + 1]
            pieces += both
    weights = [*weights, *[0.0] * (len(pieces) - len(weights))]
    device = backbone.device
    stacked = {}
    for encoder, first in pieces[0].items():
        turns = torch.arange(max(rows, len(first))) % len(first)
        stacked[encoder] = torch.stack([pieces[i][encoder].detach().float().to(device)[turns] for i in alike])
    start = torch.tensor([weights[i] for i in alike], device=device)
    start[0] = start[0].clamp(min=_LEAST_WEIGHT)
    return Mixture(name, stacked, start / start.sum(), forbidden, tuple(opposites))


def _lengths(rows: Mapping[str, Tensor]) -> list[int]:
    return [len(value) for value in rows.values()]


def spans(backbone: Backbone, groups: Sequence[Sequence[str]]) -> dict[str, Tensor]:
    """Orthonormal bases {encoder: [r, D]} of the differences between the words of each group.

    A direction in them changes which word of a group is meant. Words of several pieces count by their mean.
    """
    bases = {}
    for encoder, width in backbone.encoders.items():
        differences = [torch.zeros(0, width, device=backbone.device)]
        for words in groups:
            rows = [backbone.word_rows(word)[encoder].detach().float().mean(0) for word in words]
            if len(rows) > 1:
                table = F.normalize(torch.stack(rows).to(backbone.device), dim=-1)
                differences.append(table - table.mean(0))
        every = torch.cat(differences)
        if not len(every):
            bases[encoder] = every
            continue
        _, size, basis = torch.linalg.svd(every, full_matrices=False)
        bases[encoder] = basis[size > _NEGLIGIBLE * size[0]]
    return bases
