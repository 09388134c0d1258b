"""LoRAs that change something, and a prediction with them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ice_core.model.attention import AttentionRecorder
from ice_core.model.backbone import Backbone, Prompt, all_lora_targets
from ice_core.model.lora import Lora

TIMES = torch.tensor([100, 700])


def random_lora(backbone: Backbone, rank: int = 3, alpha: float = 1.5, text: bool = False) -> Lora:
    """A LoRA whose every layer changes something. text: of the text encoders too."""
    rng = torch.Generator().manual_seed(1)
    targets = all_lora_targets(backbone) if text else backbone.lora_targets
    lora = Lora.initial(targets, rank, rng, alpha)
    return dataclasses.replace(lora, up={k: torch.randn(v.shape, generator=rng) for k, v in lora.up.items()})


def predict(backbone: Backbone, lora: Lora | None, recorder: AttentionRecorder | None = None) -> Tensor:
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text = backbone.encode_prompts([Prompt(("a red ball",)), Prompt(("sand",))])
    return backbone.predict(noisy, TIMES, text, recorder, lora)


def same(one: Lora, other: Lora) -> bool:
    return all(
        torch.equal(one.down[k], other.down[k]) and torch.equal(one.up[k], other.up[k]) for k in one.down
    )
