"""The layers of the host's CLIP while prompts go through: fit for gradients, and without needless padding.

Both are hooks that are there for one pass and leave no trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def differentiable(transformer: nn.Module) -> Iterator[None]:
    """The host's CLIP adds in place to what its layer norms keep for the backward pass: give them copies."""
    if not torch.is_grad_enabled():
        yield
        return

    def copy(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0].clone(), *args[1:])

    with ExitStack() as stack:
        for name, module in transformer.named_modules():
            if name.endswith(("layer_norm1", "layer_norm2")):
                stack.callback(module.register_forward_pre_hook(copy).remove)
        yield


@contextmanager
def end_to_end(encoder: nn.Module, spans: Sequence[range]) -> Iterator[None]:
    """Have a CLIPEncoder of the host take its B prompts as one sequence, of each only these positions.

    spans: [B], from 0 on, or from 1 on: such a prompt sees the first one's start token, which is what its
    own would be. Attention is causal and stays inside each prompt, so what the layers answer for these
    positions is what they answer with all of them, but for rounding; for the others they answer 0.
    """
    positions = 0

    def join(
        module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        nonlocal positions
        hidden, mask = args[0], kwargs["mask"]
        positions = hidden.shape[1]
        pairs = list(zip(hidden, spans, strict=True))
        joined = torch.cat([prompt[span.start : span.stop] for prompt, span in pairs])
        inside = mask.reshape(-1, positions, positions).expand(len(spans), -1, -1)
        apart = mask.new_full((len(joined), len(joined)), torch.finfo(mask.dtype).min)
        at = 0
        for own, span in zip(inside, spans, strict=True):
            end, kept = at + len(span), slice(span.start, span.stop)
            apart[at:end, at:end] = own[kept, kept]
            if span.start > 0:
                apart[at:end, 0] = own[kept, 0]
            at = end
        return (joined[None], *args[1:]), {**kwargs, "mask": apart}

    def part(
        module: nn.Module, args: tuple[Tensor, ...], outputs: tuple[Tensor | None, ...]
    ) -> tuple[Tensor | None, ...]:
        return tuple(None if x is None else _parted(x[0], spans, positions) for x in outputs)

    with ExitStack() as stack:
        stack.callback(encoder.register_forward_pre_hook(join, with_kwargs=True).remove)
        stack.callback(encoder.register_forward_hook(part).remove)
        yield


def _parted(joined: Tensor, spans: Sequence[range], positions: int) -> Tensor:
    """[..., N, D] of the spans end to end -> [B, ..., positions, D], filled with 0."""
    prompts = zip(joined.split([len(span) for span in spans], dim=-2), spans, strict=True)
    return torch.stack([F.pad(prompt, (0, 0, span.start, positions - span.stop)) for prompt, span in prompts])
