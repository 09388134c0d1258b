"""Gradient steps on token rows and on nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ice_core.model.backbone import Backbone, Token

_SD1_ROW_SIZE = 0.014
"""Root mean square of the token embedding of CLIP ViT-L/14, the text encoder of Stable Diffusion 1."""


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


def row_sizes(backbone: Backbone) -> dict[str, float]:
    """Root mean square of plain words' embedding rows, by encoder, relative to Stable Diffusion 1's.

    A step of Adam has the learning rate's size whatever the gradient: rates are given for rows of
    CLIP ViT-L/14 and follow the size of a model's own words (ours). The bundled model's are about
    3.5 times as large, and at the paper's plain 5e-4 its tokens hardly leave their words.
    """
    rows = backbone.word_rows("a photo of the")
    sizes = {name: float(value.float().square().mean().sqrt()) for name, value in rows.items()}
    return {name: size / _SD1_ROW_SIZE if size > 0 else 1.0 for name, size in sizes.items()}


def adamw(
    tokens: Sequence[Token], learning_rate: float, weight_decay: float, sizes: Mapping[str, float]
) -> torch.optim.AdamW:
    """The optimizer of these tokens' rows, its rate times their encoder's size (`row_sizes`).

    Rows without a gradient in a step keep rows and moments. Weight decay per step stays what it is at
    size 1.
    """
    groups = [
        {
            "params": [token.rows[name] for token in tokens],
            "lr": learning_rate * size,
            "weight_decay": weight_decay / size,
        }
        for name, size in sizes.items()
    ]
    return torch.optim.AdamW(groups, foreach=False)


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


def moments_of(optimizer: torch.optim.Optimizer, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU of what Adam remembers of each named tensor, as `<name>/<kind>`."""
    return {
        f"{name}/{kind}": value.detach().cpu().clone()
        for name, tensor in learned.items()
        for kind, value in optimizer.state.get(tensor, {}).items()
    }


def restore_moments(
    optimizer: torch.optim.Optimizer, learned: Mapping[str, Tensor], moments: Mapping[str, Tensor]
) -> None:
    """Give Adam back what `moments_of` copied; tensors that had not been stepped yet begin afresh."""
    for name, tensor in learned.items():
        if f"{name}/step" in moments:
            optimizer.state[tensor] = {
                kind: moments[f"{name}/{kind}"].clone().to("cpu" if kind == "step" else tensor.device)
                for kind in ("step", "exp_avg", "exp_avg_sq")
            }
