"""Attention that is stored: every layer's probabilities (Hertz et al., "Prompt-to-Prompt", ICLR 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class AttentionStore:
    """`maps` holds the last step's probabilities by kind ("cross", "self"), one tensor [B, heads, Q, K] per
    layer, with their graph; they are let go when the next step's are complete."""

    def __init__(self) -> None:
        self.maps: dict[str, list[Tensor]] = {"cross": [], "self": []}
        self._coming: dict[str, list[Tensor]] = {"cross": [], "self": []}

    def add(self, kind: str, probabilities: Tensor) -> None:
        """Keep one layer's probabilities [B, heads, Q, K]."""
        self._coming[kind].append(probabilities)

    def between_steps(self) -> None:
        """The U-Net has run: what it added takes the place of the step before."""
        self.maps, self._coming = self._coming, {"cross": [], "self": []}


class StoringAttention:
    """Attention processor for one layer: all probabilities are computed and given to the store."""

    def __init__(self, kind: str, store: AttentionStore) -> None:
        self.kind, self.store = kind, store

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states: [B, Q, C]; returns the same shape."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(context))
        value = attn.head_to_batch_dim(attn.to_v(context))
        probabilities = attn.get_attention_scores(query, key)
        self.store.add(self.kind, probabilities.unflatten(0, (-1, attn.heads)))
        mixed = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        return attn.to_out[1](attn.to_out[0](mixed))
