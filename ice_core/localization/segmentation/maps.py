"""One noisy look at a picture: self- and cross-attention of "<concept> things background"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ice_core.errors import IceError
from ice_core.localization.segmentation.config import SegmentationConfig
from ice_core.model.attention import AttentionRecorder, Size
from ice_core.model.backbone import Backbone, Prompt
from ice_core.model.prompts import SEGMENTATION_TEMPLATE

WORDS = ("concept", "things", "background")
"""Order of the words in every word map."""

_MOST_POSITIONS = 64 * 64
"""Maps of more positions than this are not recorded: a self-attention map of 64 x 64 takes 64 MB."""


@dataclass(frozen=True)
class AttentionMaps:
    """By activation size (height, width): self-attention [Q, Q], rows are queries and sum to 1, and the
    attention [3, height, width] that every position pays to each word (mean of the word's tokens)."""

    self_attention: Mapping[Size, Tensor]
    words: Mapping[Size, Tensor]


@torch.no_grad()
def attention_maps(
    backbone: Backbone, image: Tensor, concept: str, config: SegmentationConfig, generator: torch.Generator
) -> AttentionMaps:
    """Attention maps of an image [3, H, W] in 0..1, averaged over noise draws and the mirrored image.

    generator: on the CPU. Raises IceError where the model has no such timestep, or no attention of a
    size that can be compared.
    """
    steps = len(backbone.alphas_cumprod)
    if config.timestep >= steps:
        raise IceError(f"segmentation timestep {config.timestep}; the model has steps 0 to {steps - 1}")
    views = torch.stack([image, image.flip(-1)] if config.flip else [image]).to(backbone.device)
    latents = backbone.encode_image(views).repeat(config.draws, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    signal = backbone.alphas_cumprod[config.timestep].to(latents)
    noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise

    words = tuple(concept if word == "{}" else word for word in SEGMENTATION_TEMPLATE.split())
    text = backbone.encode_prompts([Prompt(words)])
    spans = text.columns[0]
    recorder = AttentionRecorder(
        sizes=_sizes(latents.shape[-2], latents.shape[-1]),
        columns=torch.tensor([column for span in spans for column in span]),
    )
    timesteps = torch.full((len(noisy),), config.timestep, dtype=torch.long, device=noisy.device)
    backbone.predict(noisy, timesteps, text.repeat(len(noisy)), recorder)

    own, cross = recorder.recorded("self"), recorder.recorded("cross")
    if not own or not cross:
        raise IceError(
            f"the model {backbone.name!r} gives no self- and cross-attention maps for a picture of "
            f"{image.shape[-1]} x {image.shape[-2]} pixels; use a smaller one, or a U-Net model"
        )
    lengths = [len(span) for span in spans]
    self_attention, word_attention = {}, {}
    for size, weights in own.items():
        grid = weights.unflatten(2, size).unflatten(1, size)
        self_attention[size] = _mean_view(grid, (2, 4), config.flip).flatten(2).flatten(0, 1)
    for size, weights in cross.items():
        per_word = torch.stack([tokens.mean(-1) for tokens in weights.split(lengths, -1)], 1)
        word_attention[size] = _mean_view(per_word.unflatten(2, size), (3,), config.flip)
    return AttentionMaps(self_attention, word_attention)


def _sizes(height: int, width: int) -> set[Size]:
    """The latent's size halved again and again, down to 1, as far as maps of it fit in memory."""
    sizes = set()
    while True:
        if height * width <= _MOST_POSITIONS:
            sizes.add((height, width))
        if max(height, width) == 1:
            return sizes
        height, width = (height + 1) // 2, (width + 1) // 2


def _mean_view(maps: Tensor, across: tuple[int, ...], flip: bool) -> Tensor:
    """Mean [...] over the batch of maps [B, ...]; every other one is mirrored along dims `across`."""
    if not flip:
        return maps.mean(0)
    return (maps[::2].mean(0) + maps[1::2].mean(0).flip([dim - 1 for dim in across])) / 2
