"""The host's CLIP for prompts that hold learned tokens.

A tensor in place of a token's id is used as its embedding row: the host's tokenizer stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from ice_core.errors import IceError
from ice_core.model.backbone import Prompt, TextFeatures, Token

from .clip_layers import differentiable, end_to_end
from .weights import load, make_differentiable

_MARK = "\ue000"
"""A private character: its pieces in a tokenized prompt mark the place of a learned token."""
Entry = tuple[Any, float]
"""A token of the host: its id or an embedding row [D], and its weight."""


class ClipText:
    """One CLIP text encoder of a host's CLIP. key: of its tokens, for example "l" for clip_l."""

    def __init__(self, clip: Any, key: str) -> None:
        self._clip, self._key = clip.clone(), key
        self._pieces: dict[str, tuple[int, ...]] = {}
        self._differentiable = False

    @property
    def patcher(self) -> Any:
        return self._clip.patcher

    @property
    def name(self) -> str:
        """In files of learned tokens, and of the host's module."""
        return f"clip_{self._key}"

    @property
    def widths(self) -> Mapping[str, int]:
        return {self.name: self._width}

    @property
    def _module(self) -> Any:
        return getattr(self._clip.cond_stage_model, self.name)

    @property
    def _width(self) -> int:
        return int(self._module.transformer.get_input_embeddings().weight.shape[1])

    def word_rows(self, text: str) -> dict[str, Tensor]:
        load(self.patcher)
        table = self._module.transformer.get_input_embeddings()
        with torch.no_grad():
            ids = torch.tensor(self._ids(text), device=table.weight.device)
            return {self.name: table(ids, out_dtype=torch.float32).clone()}

    def encode(
        self, prompts: Sequence[Prompt], device: torch.device, contexts: int | None = None
    ) -> TextFeatures:
        """All prompts in one pass, each as a section of its own.

        context: what the host makes of them [B, L, D], of the first `contexts` prompts (None: all);
        pooled: the same at the end tokens [B, D]. Prompts whose context is not wanted go through the
        layers without their padding.
        """
        laid_out = [self._lay_out(prompt) for prompt in prompts]
        length, padded = self._room + 2, len(prompts[:contexts])
        ends = [1 + len(entries) for entries, _ in laid_out]
        self._differentiable = self._differentiable or make_differentiable(self.patcher)
        transformer = self._module.transformer
        with ExitStack() as stack:
            stack.enter_context(differentiable(transformer))
            if padded < len(prompts):
                bare = enumerate(ends[padded:], padded)
                spans = [range(length)] * padded + [range(min(i, 1), end + 1) for i, end in bare]
                stack.enter_context(end_to_end(transformer.text_model.encoder, spans))
            tokens = {self._key: [self._pad(entries) for entries, _ in laid_out]}
            joined = self._clip.encode_from_tokens(tokens)
        hidden = joined.reshape(len(prompts), length, -1).to(device)
        pooled = hidden[torch.arange(len(ends), device=device), torch.tensor(ends, device=device)]
        return TextFeatures(hidden[:padded], pooled, tuple(columns for _, columns in laid_out))

    def conditioning(self, prompt: Prompt) -> Any:
        return self._clip.encode_from_tokens_scheduled({self._key: self._sections(prompt)})

    def _ids(self, text: str) -> tuple[int, ...]:
        """Ids of a plain text, without start, end and padding; parentheses are no weights."""
        if text not in self._pieces:
            escaped = text.replace("(", "\\(").replace(")", "\\)")
            self._pieces[text] = tuple(entry[0] for entry in self._content(escaped))
        return self._pieces[text]

    def _content(self, text: str) -> list[Entry]:
        """What the host's tokenizer makes of a text, sections joined, without start, end and padding."""
        sections = self._clip.tokenize(text, return_word_ids=True)[self._key]
        return [(token, weight) for section in sections for token, weight, word in section if word]

    @property
    def _room(self) -> int:
        return int(self._module.max_length) - 2

    def _pad(self, entries: Sequence[Entry]) -> list[Entry]:
        special = self._module.special_tokens
        filling = [(special["pad"], 1.0)] * (self._room - len(entries))
        return [(special["start"], 1.0), *entries, (special["end"], 1.0), *filling]

    def _lay_out(self, prompt: Prompt) -> tuple[list[Entry], tuple[tuple[int, ...], ...]]:
        """Entries of a prompt without start and end, and the positions of every part in the context."""
        entries: list[Entry] = []
        columns = []
        for part in prompt.parts:
            new = list(self._rows_of(part)) if isinstance(part, Token) else list(self._ids(part))
            columns.append(tuple(range(len(entries) + 1, len(entries) + 1 + len(new))))
            entries += [(value, 1.0) for value in new]
        if len(entries) > self._room:
            raise IceError(
                f"the prompt {prompt.text[:60]!r} has {len(entries)} tokens, this model takes {self._room}: "
                "shorten it"
            )
        return entries, tuple(columns)

    def _rows_of(self, token: Token) -> Tensor:
        shapes = {encoder: tuple(rows.shape) for encoder, rows in token.rows.items()}
        shape = shapes.get(self.name, ())
        if len(shape) != 2 or shape[1] != self._width:
            raise IceError(
                f"the token {token.name!r} has rows {shapes}, this model needs {self.name} of width "
                f"{self._width}: the token was made for another base model"
            )
        rows = token.rows[self.name]
        return rows.clone() if rows.is_inference() and not torch.is_inference_mode_enabled() else rows

    def _sections(self, prompt: Prompt) -> list[list[Entry]]:
        """A prompt with weights and any length as the host's token sections."""
        mark = [entry[0] for entry in self._content(_MARK)]
        marked = " ".join(part if isinstance(part, str) else _MARK for part in prompt.parts)
        waiting = [part for part in prompt.parts if isinstance(part, Token)]
        groups: list[list[Entry]] = []
        found = self._content(marked)
        at = 0
        while at < len(found):
            if [value for value, _ in found[at : at + len(mark)] if isinstance(value, int)] == mark:
                groups.append([(row, found[at][1]) for row in self._rows_of(waiting.pop(0))])
                at += len(mark)
            else:
                groups.append([found[at]])
                at += 1
        sections: list[list[Entry]] = [[]]
        for group in groups:
            if len(sections[-1]) + len(group) > self._room:
                sections.append([])
            sections[-1] += group
        return [self._pad(section) for section in sections]
