"""The host's CLIP, of one text encoder or several that are read together, for prompts with learned tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ice_core.model.backbone import Prompt, TextFeatures, check_rows
from ice_core.model.lora import TEXT, Lora, LoraTarget, applied, targets_of, text_projections

from .clip_encoder import ClipEncoder, Entry
from .clip_layers import differentiable, end_to_end
from .weights import load, make_differentiable


class ClipText:
    """keys: of the tokens of each encoder, in the order in which their hidden states lie side by side.

    projected: whether the last one's pooled features are what its projection makes of its last layer, as
    where it was trained beside an image encoder; else they are what the context holds at the end token.
    told: whether the denoiser is told them too, as the host's `pooled_output`.
    """

    def __init__(self, clip: Any, *keys: str, projected: bool = False, told: bool = False) -> None:
        self._clip = clip.clone()
        self._encoders = tuple(ClipEncoder(self._clip, key) for key in keys)
        self._projected, self._told = projected, told
        self._differentiable = False

    @property
    def patcher(self) -> Any:
        return self._clip.patcher

    @cached_property
    def _projections(self) -> dict[str, nn.Linear]:
        """The projections of every attention, by the names a LoRA has for them."""
        single = len(self._encoders) == 1
        return {
            name: layer
            for of, encoder in zip(TEXT[:1] if single else TEXT[1:], self._encoders, strict=True)
            for name, layer in text_projections(of, encoder.layers).items()
        }

    @cached_property
    def lora_targets(self) -> Mapping[str, LoraTarget]:
        return targets_of(self._projections)

    @property
    def widths(self) -> Mapping[str, int]:
        return {encoder.name: encoder.width for encoder in self._encoders}

    def word_rows(self, text: str) -> dict[str, Tensor]:
        load(self.patcher)
        return {encoder.name: encoder.word_rows(text) for encoder in self._encoders}

    def encode(
        self,
        prompts: Sequence[Prompt],
        device: torch.device,
        contexts: int | None = None,
        lora: Lora | None = None,
    ) -> TextFeatures:
        """All prompts in one pass of each encoder, each as a section of its own.

        context: what the host makes of them [B, L, D], of the first `contexts` prompts (None: all); pooled:
        at the end tokens [B, P]. Prompts whose context is not wanted go through the layers without their
        padding.
        """
        check_rows(prompts, self.widths)
        laid_out = [[encoder.lay_out(prompt) for prompt in prompts] for encoder in self._encoders]
        padded = len(prompts[:contexts])
        self._differentiable = self._differentiable or make_differentiable(self.patcher)
        self._make_ready()
        if lora is not None and (lora := lora.part(self._projections)):
            lora = lora.to(self.patcher.load_device)
        with applied(self._projections, lora):
            found = [
                _hidden(encoder, [entries for entries, _ in of], padded)
                for encoder, of in zip(self._encoders, laid_out, strict=True)
            ]
        context = torch.cat([hidden for hidden, _ in found], dim=-1).to(device)
        if self._projected:
            pooled = found[-1][1].to(device)
        else:
            ends = torch.tensor([1 + len(entries) for entries, _ in laid_out[-1]], device=device)
            pooled = context[torch.arange(len(ends), device=device), ends]
        columns = tuple(columns for _, columns in laid_out[-1])
        extra = {"pooled_output": pooled} if self._told else {}
        return TextFeatures(context[:padded], pooled, columns, extra)

    def conditioning(self, prompt: Prompt) -> Any:
        check_rows([prompt], self.widths)
        sections = {encoder.key: encoder.sections(prompt) for encoder in self._encoders}
        return self._clip.encode_from_tokens_scheduled(sections)

    def _make_ready(self) -> None:
        """What `encode_from_tokens` does before it asks the encoders, which it does for the pooled features
        of one prompt only."""
        module = self._clip.cond_stage_model
        module.reset_clip_options()
        if self._clip.layer_idx is not None:
            module.set_clip_options({"layer": self._clip.layer_idx})
        self._clip.load_model()
        module.set_clip_options({"execution_device": self.patcher.load_device})


def _hidden(encoder: ClipEncoder, prompts: Sequence[list[Entry]], padded: int) -> tuple[Tensor, Tensor]:
    """What an encoder makes of prompts: hidden states [B, L, D], of all but the first `padded` only where
    their entries are, and pooled features [B, P]."""
    transformer = encoder.module.transformer
    with ExitStack() as stack:
        stack.enter_context(differentiable(transformer))
        if padded < len(prompts):
            bare = enumerate(prompts[padded:], padded)
            spans = [range(encoder.length)] * padded
            spans += [range(min(i, 1), len(entries) + 2) for i, entries in bare]
            stack.enter_context(end_to_end(transformer.text_model.encoder, spans))
        ids = [[value for value, _ in encoder.pad(entries)] for entries in prompts]
        hidden, pooled = encoder.module.encode(ids)[:2]
    return hidden, pooled
