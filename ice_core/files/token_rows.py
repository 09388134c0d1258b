"""Rows of a learned token, out of whatever file they come from."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ice_core.concepts import LearnedConcepts
from ice_core.errors import IceError


def as_rows(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Tensors by text encoder as rows [n, D], float32 on the CPU; a single row may lack its dimension.

    Raises IceError for what are no rows of finite numbers, the same number of them for each encoder.
    """
    rows = {k: v[None] if v.ndim == 1 else v for k, v in tensors.items()}
    if not rows or any(v.ndim != 2 or not v.numel() or v.is_complex() for v in rows.values()):
        raise IceError(f"{where} holds no embedding rows; it is not a textual inversion")
    if len({len(v) for v in rows.values()}) > 1:
        counts = ", ".join(f"{name} {len(v)}" for name, v in rows.items())
        raise IceError(f"{where} holds different numbers of rows ({counts}); train or download it again")
    rows = {k: v.detach().to("cpu", torch.float32) for k, v in rows.items()}
    if not all(v.isfinite().all() for v in rows.values()):
        raise IceError(f"{where} holds values that are not numbers; train or download it again")
    return rows


def check_alike(learned: LearnedConcepts, where: str) -> LearnedConcepts:
    """The same concepts. Raises IceError unless all tokens have the same encoders and widths."""
    widths = {
        tuple(sorted((name, rows.shape[1]) for name, rows in token.rows.items()))
        for token in learned.tokens.values()
    }
    if len(widths) > 1:
        raise IceError(f"{where} holds tokens of several kinds ({sorted(widths)}); extract again")
    return learned
