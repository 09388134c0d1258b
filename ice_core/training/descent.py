"""Gradient steps on token rows and on nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ice_core.backbone import Token


@contextmanager
def learning() -> Iterator[None]:
    """Gradients on, also where a host runs everything in inference mode.

    Opened around each step and never across a yield: a generator that is suspended inside would leave
    its modes switched on in the caller's thread.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield


def trainable(token: Token, device: torch.device) -> Token:
    """The same values as fresh float32 leaves that take gradients."""
    return Token(
        token.name, {k: v.detach().float().to(device).clone().requires_grad_() for k, v in token.rows.items()}
    )


def adamw(tokens: Sequence[Token], learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """The optimizer of these tokens' rows; rows without a gradient in a step keep rows and moments."""
    rows = [row for token in tokens for row in token.rows.values()]
    return torch.optim.AdamW(rows, lr=learning_rate, weight_decay=weight_decay, foreach=False)


def descend(loss: Tensor, tokens: Sequence[Token], optimizer: torch.optim.Optimizer) -> bool:
    """Move the tokens' rows by one optimizer step and leave no gradient behind.

    Differentiates by the rows only, so a model whose weights require gradients collects none. Returns
    False, with nothing moved, when the loss or a gradient is not finite.
    """
    rows = [row for token in tokens for row in token.rows.values()]
    gradients = torch.autograd.grad(loss, rows)
    if not all(bool(torch.isfinite(x).all()) for x in (loss, *gradients)):
        return False
    for row, gradient in zip(rows, gradients, strict=True):
        row.grad = gradient
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return True
