"""One noisy look at a picture: self- and cross-attention of "<concept> things background", or of several
concepts at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ice_core.errors import IceError
from ice_core.localization.segmentation.config import SegmentationConfig
from ice_core.model.attention import AttentionRecorder, Kind, Size
from ice_core.model.backbone import Backbone, Prompt, TextFeatures
from ice_core.model.prompts import SEGMENTATION_TEMPLATE

THINGS, BACKGROUND = -2, -1
"""Indices of these words in every word map; the concepts come before them."""

ANY_THING = "object"
"""A word that fits whatever is in a picture."""

MOST_POSITIONS = 64 * 64
"""Maps of more positions than this are not recorded: a self-attention map of 64 x 64 takes 64 MB."""


@dataclass(frozen=True)
class AttentionMaps:
    """By activation size (height, width): self-attention [Q, Q], rows are queries and sum to 1 (empty where
    it was not asked for), and the attention [W, height, width] that every position pays to each word (mean of
    the word's tokens): the concepts, things, background."""

    self_attention: Mapping[Size, Tensor]
    words: Mapping[Size, Tensor]


@dataclass(frozen=True)
class NoisedPass:
    """What one pass of the model over a noised picture attended to; maps are computed when asked for.

    recorder: holds the batch's queries and keys; lengths: tokens of each word, whose columns the recorder
    keeps; flip: every other picture of the batch is mirrored.
    """

    recorder: AttentionRecorder
    lengths: tuple[int, ...]
    flip: bool

    def words(self) -> dict[Size, Tensor]:
        """Attention to each word: (height, width) -> [W, height, width], mean of all views and tokens."""
        maps = {}
        for size, weights in self.recorder.recorded("cross").items():
            per_word = torch.stack([tokens.mean(-1) for tokens in weights.split(self.lengths, -1)], 1)
            maps[size] = _mean_view(per_word.unflatten(2, size), (3,), self.flip)
        return maps

    def self_attention(self) -> dict[Size, Tensor]:
        """(height, width) -> [Q, Q], mean of all views, heads and layers."""
        maps = {}
        for size, weights in self.recorder.recorded("self").items():
            grid = weights.unflatten(2, size).unflatten(1, size)
            maps[size] = _mean_view(grid, (2, 4), self.flip).flatten(2).flatten(0, 1)
        return maps

    def heads(self, size: Size) -> Iterator[Tensor]:
        """Self-attention [Q, Q] of one head of one layer after the other, mean of the views as they are."""
        for weights in self.recorder.by_head("self", size):
            yield weights[:: 2 if self.flip else 1].mean(0)


@torch.no_grad()
def encode_views(backbone: Backbone, image: Tensor, flip: bool) -> Tensor:
    """Latents [1, C, h, w] of an image [3, H, W] in 0..1; with `flip` [2, C, h, w], the mirrored one last."""
    views = torch.stack([image, image.flip(-1)] if flip else [image]).to(backbone.device)
    return backbone.encode_image(views)


@torch.no_grad()
def noised_pass(
    backbone: Backbone,
    views: Tensor,
    concepts: Sequence[str],
    timestep: int,
    draws: int,
    generator: torch.Generator,
    kinds: Collection[Kind] = ("self", "cross"),
    most: int = MOST_POSITIONS,
) -> NoisedPass:
    """One look at a picture, noised up to a timestep, for concepts, things and background.

    views: latents of `encode_views`; draws: of noise for each, all in one batch. kinds: the attention that
    will be asked for, in layers of at most so many positions; what is recorded stays in memory. generator:
    on the CPU.
    Raises IceError where the model has no such timestep, or no attention of a size that can be compared.
    """
    steps = len(backbone.alphas_cumprod)
    if timestep >= steps:
        raise IceError(f"segmentation timestep {timestep}; the model has steps 0 to {steps - 1}")
    latents = views.repeat(draws, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    signal = backbone.alphas_cumprod[timestep].to(latents)
    noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise

    text = _one_context(backbone, concepts)
    spans = text.columns[0]
    recorder = AttentionRecorder(
        kinds=kinds,
        sizes=_sizes(latents.shape[-2], latents.shape[-1], most),
        columns=torch.tensor([column for span in spans for column in span]),
    )
    timesteps = torch.full((len(noisy),), timestep, dtype=torch.long, device=noisy.device)
    backbone.predict(noisy, timesteps, text.repeat(len(noisy)), recorder)
    if not all(recorder.recorded_sizes(kind) for kind in kinds):
        height, width = (side * backbone.factor for side in views.shape[-2:])
        raise IceError(
            f"the model {backbone.name!r} gives no {'- and '.join(kinds)}-attention maps for a picture of "
            f"{width} x {height} pixels; use a smaller one, or a U-Net model"
        )
    return NoisedPass(recorder, tuple(len(span) for span in spans), len(views) == 2)


@torch.no_grad()
def attention_maps(
    backbone: Backbone,
    views: Tensor,
    concepts: Sequence[str],
    config: SegmentationConfig,
    generator: torch.Generator,
) -> AttentionMaps:
    """Attention maps of `encode_views`, averaged over noise draws and the mirrored image.

    generator: on the CPU. Raises IceError as `noised_pass` does.
    """
    kinds: tuple[Kind, ...] = ("self", "cross") if config.looks_at_itself else ("cross",)
    seen = noised_pass(backbone, views, concepts, config.timestep, config.draws, generator, kinds)
    return AttentionMaps(seen.self_attention() if config.looks_at_itself else {}, seen.words())


def _one_context(backbone: Backbone, concepts: Sequence[str]) -> TextFeatures:
    """What a denoiser attends to: "<concept> things background". Of several concepts at once (ours):
    "object things background", and after its end the places that each takes in such a prompt of its own. In
    one prompt together, words would change what the encoder makes of one another.

    The columns are those of the concepts, of things and of background.
    """
    rows = [*concepts] if len(concepts) == 1 else [ANY_THING, *concepts]
    words = SEGMENTATION_TEMPLATE.split()
    text = backbone.encode_prompts([Prompt(tuple(word.format(row) for word in words)) for row in rows])
    at = words.index("{}")
    rest = [columns for n, columns in enumerate(text.columns[0]) if n != at]
    pieces, spans = [text.context[:1]], [text.columns[0][at]]
    end = text.context.shape[1]
    for row in range(1, len(rows)):
        own = text.columns[row][at]
        pieces.append(text.context[row : row + 1, list(own)])
        spans.append(tuple(range(end, end + len(own))))
        end += len(own)
    extra = {name: value[:1] for name, value in text.extra.items()}
    columns = (*spans[-len(concepts) :], *rest)
    return TextFeatures(torch.cat(pieces, 1), text.pooled[:1], (columns,), extra)


def _sizes(height: int, width: int, most: int) -> set[Size]:
    """The latent's size halved again and again, down to 1, where it has at most so many positions."""
    sizes = set()
    while True:
        if height * width <= most:
            sizes.add((height, width))
        if max(height, width) == 1:
            return sizes
        height, width = (height + 1) // 2, (width + 1) // 2


def _mean_view(maps: Tensor, across: tuple[int, ...], flip: bool) -> Tensor:
    """Mean [...] over the batch of maps [B, ...]; every other one is mirrored along dims `across`."""
    if not flip:
        return maps.mean(0)
    return (maps[::2].mean(0) + maps[1::2].mean(0).flip([dim - 1 for dim in across])) / 2
