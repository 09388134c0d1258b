"""The host's U-Net trained in less memory: what its blocks keep for the backward pass is computed again.

Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174). The blocks' forward is wrapped for one pass and
is as before after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import nn
from torch.utils.checkpoint import checkpoint

Around = Callable[[], AbstractContextManager[Any]]


def blocks_of(unet: nn.Module) -> tuple[nn.Module, ...]:
    """The parts that are computed again one at a time."""
    return tuple(m for m in unet.modules() if isinstance(m, (ResBlock, BasicTransformerBlock)))


@contextmanager
def recomputed(blocks: Iterable[nn.Module], around: Around) -> Iterator[None]:
    """Inside, blocks keep their inputs only, and are computed again in the backward pass, within `around`."""
    with ExitStack() as stack:
        for block in blocks:
            stack.callback(_wrap(block, around))
        yield


def _wrap(block: nn.Module, around: Around) -> Callable[[], None]:
    """-> what undoes it."""
    forward, own = block.forward, "forward" in vars(block)

    def run(*args: Any, **kwargs: Any) -> Any:
        # The host tells every block where it is in one dict that it writes on in: keep what it says now.
        args, kwargs = tuple(_kept(x) for x in args), {name: _kept(x) for name, x in kwargs.items()}

        def once(*tensors: Any, **named: Any) -> Any:
            return forward(*(_kept(x) for x in tensors), **{name: _kept(x) for name, x in named.items()})

        return checkpoint(
            once,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), around()),
            **kwargs,
        )

    def undo() -> None:
        if own:
            block.forward = forward
        else:
            del block.forward

    block.forward = run
    return undo


def _kept(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value
