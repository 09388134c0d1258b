"""Attention that is recorded, not stored.

A recorder is asked for what a caller needs; a backbone hands it queries and keys after projection, and of
those it computes just the probabilities that are asked for. The model's own attention stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Kind = Literal["self", "cross"]
Size = tuple[int, int]

_CHUNK_ELEMENTS = 2**26
_NEGLIGIBLE = 1e-30


@dataclass
class AttentionRecorder:
    """Softmaxed attention, averaged over heads and over the layers of one resolution.

    kinds: which attention is wanted; sizes: which activation sizes (height, width), None for all;
    columns: for cross-attention, the token positions to keep (None: all).
    """

    kinds: Collection[Kind] = ("self", "cross")
    sizes: Collection[Size] | None = None
    columns: Tensor | None = None
    _layers: dict[tuple[Kind, Size], list[_Layer]] = field(default_factory=dict, repr=False)

    def wants(self, kind: Kind, size: Size) -> bool:
        """Whether a layer of this kind and activation size should call `record`."""
        return kind in self.kinds and (self.sizes is None or size in self.sizes)

    def record(self, kind: Kind, size: Size, query: Tensor, key: Tensor, scale: float) -> None:
        """Add one layer. query: [B, heads, Q, d], key: [B, heads, K, d], Q = height * width."""
        self._layers.setdefault((kind, size), []).append(_Layer(query, key, scale))

    def recorded(self, kind: Kind) -> dict[Size, Tensor]:
        """Mean maps by activation size: [B, Q, K] (self: K = Q; cross: K = tokens or columns).

        Softmax runs over all keys in float32, before columns are picked. Gradients pass.
        """
        columns = self.columns if kind == "cross" else None
        return {size: _mean(layers, columns) for (k, size), layers in self._layers.items() if k == kind}

    def recorded_sizes(self, kind: Kind) -> tuple[Size, ...]:
        """Activation sizes (height, width) that some layer of this kind has, in the order of the layers."""
        return tuple(size for k, size in self._layers if k == kind)

    def by_head(self, kind: Kind, size: Size) -> Iterator[Tensor]:
        """Maps [B, Q, K] of one head after the other, over all layers of a size; one at a time in memory.

        Softmax runs over all keys in float32. Gradients pass.
        """
        for layer in self._layers.get((kind, size), ()):
            for query, key in zip(layer.query.unbind(1), layer.key.unbind(1), strict=True):
                logits = query.float() @ key.float().transpose(-1, -2)
                yield logits.mul_(layer.scale).softmax(-1)


@dataclass(frozen=True)
class _Layer:
    """What `record` was handed."""

    query: Tensor
    key: Tensor
    scale: float

    @property
    def make(self) -> tuple[torch.Size, torch.Size, float]:
        return self.query.shape, self.key.shape, self.scale


def _mean(layers: Sequence[_Layer], columns: Tensor | None) -> Tensor:
    """Probabilities averaged over heads, then over layers. Layers of one make count as one with all their
    heads: fewer and larger operations."""
    parts = []
    for make in dict.fromkeys(layer.make for layer in layers):
        alike = [layer for layer in layers if layer.make == make]
        query, key = (torch.cat([getattr(x, name) for x in alike], 1).float() for name in ("query", "key"))
        at = None if columns is None else columns.to(query.device)
        batch, heads, count, _ = query.shape
        rows = max(1, _CHUNK_ELEMENTS // (batch * heads * key.shape[2]))
        chunks = [query] if rows >= count else query.split(rows, dim=2)
        found = [_Weights.apply(chunk, key, alike[0].scale, at) for chunk in chunks]
        share = len(alike) / len(layers)
        parts.append((found[0] if len(found) == 1 else torch.cat(found, 1)) * share)
    return sum(parts[1:], parts[0])


class _Weights(torch.autograd.Function):
    """Softmax over all keys, mean over heads: query [B, heads, Q, d], key [B, heads, K, d] -> [B, Q, K], or
    [B, Q, columns].

    Its own backward pass, because a sharp softmax passes on numbers so small (denormal) that a processor
    takes up to a hundred times as long for each product with them.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, scale: float, columns: Tensor | None) -> Tensor:
        weights = (query @ key.transpose(-1, -2)).mul_(scale).softmax(-1)
        picked = weights if columns is None else weights.index_select(-1, columns)
        ctx.save_for_backward(query, key, weights, picked)
        ctx.scale, ctx.columns = scale / query.shape[1], columns
        return picked.mean(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        query, key, weights, picked = ctx.saved_tensors
        weighted = picked * gradient[:, None]
        logits = weights * weighted.sum(-1, keepdim=True).neg_()
        logits = (
            logits.add_(weighted) if ctx.columns is None else logits.index_add_(-1, ctx.columns, weighted)
        )
        logits = F.hardshrink(logits.mul_(ctx.scale), _NEGLIGIBLE)
        return logits @ key, logits.transpose(-1, -2) @ query, None, None
