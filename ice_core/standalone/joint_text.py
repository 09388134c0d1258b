"""Several CLIP text encoders that a model reads together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ice_core.model.backbone import Prompt, TextFeatures, check_rows
from ice_core.standalone.clip_text import ClipText


class JointText:
    """encoders: their hidden states lie side by side in the context; the pooled features are the last one's,
    which the U-Net is told too (`text_embeds` of diffusers' `added_cond_kwargs`)."""

    def __init__(self, *encoders: ClipText) -> None:
        self.encoders = encoders

    @property
    def adaptable(self) -> dict[str, nn.Linear]:
        """The projections of every attention, by the names a LoRA has for them."""
        return {name: layer for encoder in self.encoders for name, layer in encoder.adaptable.items()}

    @property
    def widths(self) -> Mapping[str, int]:
        """Width of the embedding rows by encoder."""
        return {name: width for encoder in self.encoders for name, width in encoder.widths.items()}

    def word_rows(self, text: str) -> dict[str, Tensor]:
        """{encoder: embedding-table rows [n, D]} of the pieces of a text."""
        return {name: rows for encoder in self.encoders for name, rows in encoder.word_rows(text).items()}

    def encode(self, prompts: Sequence[Prompt], contexts: int | None = None) -> TextFeatures:
        """What `Backbone.encode_prompts` promises. Raises IceError for a token that has not as many rows for
        each encoder."""
        check_rows(prompts, self.widths)
        found = [encoder.encode(prompts, contexts) for encoder in self.encoders]
        context = torch.cat([one.context for one in found], dim=-1)
        pooled = found[-1].pooled
        return TextFeatures(context, pooled, found[-1].columns, {"text_embeds": pooled})

    def state(self) -> dict[str, Tensor]:
        """The weights, keys `<encoder>.<key relative to text_model.>`."""
        return {
            f"{encoder.name}.{key}": value
            for encoder in self.encoders
            for key, value in encoder.state().items()
        }
