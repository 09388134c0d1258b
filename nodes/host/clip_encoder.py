"""One text encoder of the host's CLIP: prompts that hold learned tokens as the tokens it takes.

A tensor in place of a token's id is used as its embedding row: the host's tokenizer stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ice_core.errors import IceError
from ice_core.model.backbone import Prompt, Token

_MARK = "\ue000"
"""A private character: its pieces in a tokenized prompt mark the place of a learned token."""
Entry = tuple[Any, float]
"""A token of the host: its id or an embedding row [D], and its weight."""


class ClipEncoder:
    """key: of its tokens in what the host's CLIP makes of a text, for example "l" for clip_l."""

    def __init__(self, clip: Any, key: str) -> None:
        self._clip, self.key = clip, key
        self._pieces: dict[str, tuple[int, ...]] = {}

    @property
    def name(self) -> str:
        """In files of learned tokens, and of the host's module."""
        return f"clip_{self.key}"

    @property
    def module(self) -> Any:
        """The host's SDClipModel."""
        return getattr(self._clip.cond_stage_model, self.name)

    @property
    def width(self) -> int:
        """Of the embedding rows."""
        return int(self.module.transformer.get_input_embeddings().weight.shape[1])

    @property
    def length(self) -> int:
        """Positions of a prompt, start and end included."""
        return int(self.module.max_length)

    @property
    def layers(self) -> Any:
        """The transformer's, first to last."""
        return self.module.transformer.text_model.encoder.layers

    def word_rows(self, text: str) -> Tensor:
        """Embedding rows [n, D] of a text's pieces; the host must have loaded the CLIP."""
        table = self.module.transformer.get_input_embeddings()
        with torch.no_grad():
            ids = torch.tensor(self._ids(text), device=table.weight.device)
            return table(ids, out_dtype=torch.float32).clone()

    def lay_out(self, prompt: Prompt) -> tuple[list[Entry], tuple[tuple[int, ...], ...]]:
        """Entries of a prompt without start and end, and the positions of every part in the context.

        Raises IceError for a prompt that is too long, and for a token of another base model.
        """
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

    def pad(self, entries: Sequence[Entry]) -> list[Entry]:
        """A whole section: start, entries, end and padding."""
        special = self.module.special_tokens
        filling = [(special["pad"], 1.0)] * (self._room - len(entries))
        return [(special["start"], 1.0), *entries, (special["end"], 1.0), *filling]

    def sections(self, prompt: Prompt) -> list[list[Entry]]:
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
        return [self.pad(section) for section in sections]

    @property
    def _room(self) -> int:
        return self.length - 2

    def _ids(self, text: str) -> tuple[int, ...]:
        """Ids of a plain text, without start, end and padding; parentheses are no weights."""
        if text not in self._pieces:
            escaped = text.replace("(", "\\(").replace(")", "\\)")
            self._pieces[text] = tuple(entry[0] for entry in self._content(escaped))
        return self._pieces[text]

    def _content(self, text: str) -> list[Entry]:
        """What the host's tokenizer makes of a text, sections joined, without start, end and padding."""
        sections = self._clip.tokenize(text, return_word_ids=True)[self.key]
        return [(token, weight) for section in sections for token, weight, word in section if word]

    def _rows_of(self, token: Token) -> Tensor:
        shapes = {encoder: tuple(rows.shape) for encoder, rows in token.rows.items()}
        shape = shapes.get(self.name, ())
        if len(shape) != 2 or shape[1] != self.width:
            raise IceError(
                f"the token {token.name!r} has rows {shapes}, this model needs {self.name} of width "
                f"{self.width}: the token was made for another base model"
            )
        rows = token.rows[self.name]
        return rows.clone() if rows.is_inference() and not torch.is_inference_mode_enabled() else rows
