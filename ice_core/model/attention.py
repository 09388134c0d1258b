"""Attention that is recorded, not stored.

A recorder is asked for what a caller needs; a backbone hands it queries and keys after projection, it
computes just those probabilities and accumulates them. The model's own attention stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["self", "cross"]
Size = tuple[int, int]

_CHUNK_ELEMENTS = 2**26
_NEGLIGIBLE = 1e-30


@dataclass
class AttentionRecorder:
    """Accumulates softmaxed attention, averaged over heads and over the layers of one resolution.

    kinds: which attention is wanted; sizes: which activation sizes (height, width), None for all;
    columns: for cross-attention, the token positions to keep (None: all).
    """

    kinds: Collection[Kind] = ("self", "cross")
    sizes: Collection[Size] | None = None
    columns: Tensor | None = None
    _sums: dict[tuple[Kind, Size], Tensor] = field(default_factory=dict, repr=False)
    _counts: dict[tuple[Kind, Size], int] = field(default_factory=dict, repr=False)

    def wants(self, kind: Kind, size: Size) -> bool:
        """Whether a layer of this kind and activation size should call `record`."""
        return kind in self.kinds and (self.sizes is None or size in self.sizes)

    def record(self, kind: Kind, size: Size, query: Tensor, key: Tensor, scale: float) -> None:
        """Add one layer. query: [B, heads, Q, d], key: [B, heads, K, d], Q = height * width.

        Softmax runs over all keys in float32, before columns are picked. Gradients pass.
        """
        batch, heads = query.shape[:2]
        keys = key.shape[2]
        rows = max(1, _CHUNK_ELEMENTS // (batch * heads * keys))
        parts = []
        transposed = key.float().transpose(-1, -2)
        for part in query.float().split(rows, dim=2):
            logits = part @ transposed * scale
            if logits.requires_grad:
                logits.register_hook(_without_denormals)
            weights = logits.softmax(-1)
            if kind == "cross" and self.columns is not None:
                weights = weights.index_select(-1, self.columns.to(weights.device))
            parts.append(weights.mean(1))
        weights = torch.cat(parts, 1)
        slot = (kind, size)
        self._sums[slot] = self._sums[slot] + weights if slot in self._sums else weights
        self._counts[slot] = self._counts.get(slot, 0) + 1

    def recorded(self, kind: Kind) -> dict[Size, Tensor]:
        """Mean maps by activation size: [B, Q, K] (self: K = Q; cross: K = tokens or columns)."""
        return {size: total / self._counts[k, size] for (k, size), total in self._sums.items() if k == kind}


def _without_denormals(gradient: Tensor) -> Tensor:
    """The same without what rounds to nothing: a sharp softmax passes on numbers so small that a processor
    takes up to a hundred times as long for each product with them."""
    return F.hardshrink(gradient, _NEGLIGIBLE)
