"""Low-rank adaptation of the attention of a model and its text encoders, as a value.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685. A layer W x
becomes W x + alpha / rank * up down x. W stays as it is: the sum is made while the model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ice_core.errors import IceError

PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
"""The layers of an attention that are adapted, by their names in diffusers."""


TEXT_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
"""The same of a CLIP text encoder's, by their names in transformers."""
UNET = "lora_unet"
TEXT = ("lora_te", "lora_te1", "lora_te2")
"""What names begin with in kohya's layout: of a single text encoder, and of the first and second of two."""


def kohya_name(path: str, of: str = UNET) -> str:
    """A U-Net layer's path in diffusers, "down_blocks.0...to_q" -> "lora_unet_down_blocks_0_..._to_q"."""
    return f"{of}_{path.replace('.', '_')}"


def text_projections(of: str, layers: Iterable[Any]) -> dict[str, nn.Linear]:
    """The attention projections of a CLIP text encoder's layers, first to last, by their names in LoRA files:
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj"."""
    return {
        kohya_name(f"text_model.encoder.layers.{n}.self_attn.{name}", of): getattr(layer.self_attn, name)
        for n, layer in enumerate(layers)
        for name in TEXT_PROJECTIONS
    }


@dataclass(frozen=True)
class LoraTarget:
    """A linear layer that can be adapted. name: `kohya_name`; inputs, outputs: its widths."""

    name: str
    inputs: int
    outputs: int


def targets_of(layers: Mapping[str, nn.Linear]) -> dict[str, LoraTarget]:
    """What a LoRA can adapt, of layers by their names."""
    return {name: LoraTarget(name, layer.in_features, layer.out_features) for name, layer in layers.items()}


@dataclass(frozen=True)
class Lora:
    """Low-rank terms by layer. down: [rank, inputs], up: [outputs, rank], of the same names; alpha: the
    term's weight times its rank. Raises IceError when they do not belong together."""

    down: Mapping[str, Tensor]
    up: Mapping[str, Tensor]
    alpha: float

    def __post_init__(self) -> None:
        if not self.down:
            raise IceError("the LoRA is empty: it adapts no layer")
        if alone := sorted(self.down.keys() ^ self.up.keys()):
            raise IceError(f"the LoRA has only one of its two matrices for {alone[0]}: the file is damaged")
        for name, down in self.down.items():
            up = self.up[name]
            if down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1] or not len(down):
                raise IceError(
                    f"the LoRA's matrices for {name} are {tuple(down.shape)} and {tuple(up.shape)}, but "
                    "should be rank x inputs and outputs x rank"
                )

    @classmethod
    def initial(
        cls,
        targets: Mapping[str, LoraTarget],
        rank: int,
        generator: torch.Generator,
        alpha: float | None = None,
    ) -> Lora:
        """A LoRA that changes nothing yet: down uniform in +-1 / sqrt(inputs) (Kaiming's, as everyone
        starts), up zero; float32 on the CPU. alpha: default `rank`, so that the scale is 1."""
        down, up = {}, {}
        for name in sorted(targets):
            target = targets[name]
            uniform = torch.rand(rank, target.inputs, generator=generator)
            down[name] = (2 * uniform - 1) * target.inputs**-0.5
            up[name] = torch.zeros(target.outputs, rank)
        return cls(down, up, float(rank if alpha is None else alpha))

    @property
    def rank(self) -> int:
        """The largest rank of any layer; those that this package learns have one rank."""
        return max(len(down) for down in self.down.values())

    def scale(self, name: str) -> float:
        """What a layer's term is multiplied with: alpha / rank."""
        return self.alpha / len(self.down[name])

    def to(self, device: torch.device | str) -> Lora:
        """The same values on a device; gradients pass."""
        down, up = ({k: v.to(device) for k, v in x.items()} for x in (self.down, self.up))
        return Lora(down, up, self.alpha)

    def part(self, names: Container[str]) -> Lora | None:
        """The terms of these layers alone; None where there are none."""
        down = {name: value for name, value in self.down.items() if name in names}
        if len(down) == len(self.down):
            return self
        return Lora(down, {name: self.up[name] for name in down}, self.alpha) if down else None

    def detach(self) -> Lora:
        """The same values cut off from autograd, on the CPU, in float32."""
        down, up = ({k: v.detach().float().cpu().clone() for k, v in x.items()} for x in (self.down, self.up))
        return Lora(down, up, self.alpha)

    def check(self, targets: Mapping[str, LoraTarget], model: str) -> None:
        """Raise IceError unless every layer is a target of the model (`all_lora_targets`)."""
        for name, down in self.down.items():
            if name not in targets:
                raise IceError(
                    f"the LoRA adapts {name}, which {model} does not have or which is no attention "
                    "projection; load the base model it was made for"
                )
            have = (down.shape[1], len(self.up[name]))
            want = (targets[name].inputs, targets[name].outputs)
            if have != want:
                raise IceError(
                    f"the LoRA's {name} goes from {have[0]} to {have[1]} numbers, that of {model} from "
                    f"{want[0]} to {want[1]}; load the base model it was made for"
                )


@contextmanager
def applied(layers: Mapping[str, nn.Module], lora: Lora | None) -> Iterator[None]:
    """Inside, the named linear layers add their term of the LoRA; afterwards they are as before.

    The term is computed in the LoRA's own precision. Without a LoRA nothing happens.
    """
    hooks = []
    try:
        for name in lora.down if lora is not None else ():
            assert lora is not None
            term = _adding(lora.down[name], lora.up[name], lora.scale(name))
            hooks.append(layers[name].register_forward_hook(term))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _adding(down: Tensor, up: Tensor, scale: float) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A forward hook: output + scale * up down input."""

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        term = F.linear(F.linear(args[0].to(down.dtype), down), up) * scale
        return output + term.to(output.dtype)

    return hook
