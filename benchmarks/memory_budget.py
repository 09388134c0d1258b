"""Memory that Stage Two needs on a card, computed from the models' shapes: nothing is run, no weights needed.

    python benchmarks/memory_budget.py --out benchmarks/results/memory_budget.json

A step is made on tensors that have sizes and no numbers, and what autograd keeps for the backward pass is
counted, each storage once. `gib` is the sum of:

- the weights of U-Net, text encoders and autoencoder in bfloat16;
- what text encoders and U-Net keep at the family's own size; with `checkpointing` what the U-Net keeps
  between its blocks, and the most that one block keeps when it is computed again;
- 1.5 GiB for the device's context, workspaces and what the allocator cannot use.

Attention counts without its matrix, as flash and memory-efficient kernels compute it. `copies` are the noisy
copies of a step: one object of the default method learns from 8, the paper's from 1. Drawing pictures takes
what any other program needs for that, and the attention that the paper's method records is not counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from full_size_models import SHAPES, random_model
from results import write_results
from torch import Tensor, nn

from ice_core.model.backbone import Prompt, Token
from ice_core.standalone.backbone import StandaloneBackbone

RESERVE_GIB = 1.5
CARDS = (8, 12, 16, 24)
COPIES = (1, 8)
META = torch.device("meta")
_BLOCKS = ("ResnetBlock2D", "BasicTransformerBlock")
"""Classes of the parts that diffusers computes again one at a time."""


@dataclass
class Kept:
    """Bytes that autograd keeps. seen: storages that are counted already, as the weights are."""

    seen: set[int]
    bytes: int = 0
    alive: list[Tensor] = field(default_factory=list)

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.seen:
            self.seen.add(storage._cdata)
            self.bytes += storage.nbytes()
            # A storage that is let go may come again under the same address.
            self.alive.append(tensor)
        return tensor


class _Attend(torch.autograd.Function):
    """Attention as kernels without its matrix have it: inputs and output are kept."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out)
        return out


@contextmanager
def counted(modules: list[nn.Module]) -> Iterator[Kept]:
    """What is kept inside, without these modules' weights."""
    kept = Kept({p.untyped_storage()._cdata for module in modules for p in module.parameters()})

    def attend(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        return _Attend.apply(query, key, value)

    hooks = torch.autograd.graph.saved_tensors_hooks(kept.add, lambda x: x)
    with hooks, patch("torch.nn.functional.scaled_dot_product_attention", attend):
        yield kept


@contextmanager
def largest_block(unet: nn.Module, kept: Kept) -> Iterator[list[int]]:
    """The most that one block keeps, as the only item of a list."""
    most, before = [0], [0]

    def begin(*_: Any) -> None:
        before[0] = kept.bytes

    def end(*_: Any) -> None:
        most[0] = max(most[0], kept.bytes - before[0])

    with ExitStack() as stack:
        for module in unet.modules():
            if type(module).__name__ in _BLOCKS:
                stack.callback(module.register_forward_pre_hook(begin).remove)
                stack.callback(module.register_forward_hook(end).remove)
        yield most


def step(backbone: StandaloneBackbone, copies: int) -> dict[str, int]:
    """Bytes that a step keeps: `text`, `unet`, and the most that one `block` of the U-Net does."""
    encoders = getattr(backbone.text, "encoders", (backbone.text,))
    rows = {
        name: torch.empty(1, width, device=META, requires_grad=True)
        for name, width in backbone.encoders.items()
    }
    prompts = [Prompt(("a photo of a", Token("it", rows)))] * copies
    with counted([encoder.module for encoder in encoders]) as text_kept:
        text = backbone.encode_prompts(prompts)
    side = backbone.native_size // backbone.factor
    noisy, times = torch.empty(copies, 4, side, side, device=META), torch.zeros(copies, dtype=torch.long)
    with counted([backbone.unet]) as kept, largest_block(backbone.unet, kept) as most:
        backbone.predict(noisy, times, text)
    return {"text": text_kept.bytes, "unet": kept.bytes, "block": most[0]}


def budgets(family: str) -> dict[str, Any]:
    """GiB by copies and by whether blocks are computed again, and the smallest card that has as much."""
    backbone = random_model(family, META, torch.bfloat16)
    encoders = getattr(backbone.text, "encoders", (backbone.text,))
    modules = (backbone.unet, backbone.vae, *(encoder.module for encoder in encoders))
    weights = sum(p.numel() * p.element_size() for module in modules for p in module.parameters())
    plain = {copies: step(backbone, copies) for copies in COPIES}
    backbone.checkpoint_gradients()
    again = {copies: step(backbone, copies) for copies in COPIES}
    found: dict[str, Any] = {"side": backbone.native_size, "weights_gib": round(weights / 2**30, 2)}
    for copies in COPIES:
        totals = {
            "plain": plain[copies]["text"] + plain[copies]["unet"],
            "checkpointing": again[copies]["text"] + again[copies]["unet"] + plain[copies]["block"],
        }
        for name, kept in totals.items():
            gib = (weights + kept) / 2**30 + RESERVE_GIB
            card = next((card for card in CARDS if gib <= card), None)
            found[f"{name}, copies {copies}"] = {"gib": round(gib, 1), "card_gb": card}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    settings = {"reserve_gib": RESERVE_GIB, "dtype": "bfloat16"}
    write_results(arguments.out, {family: budgets(family) for family in SHAPES}, settings)


if __name__ == "__main__":
    main()
