"""A CLIP text encoder of transformers, for prompts that hold learned tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ice_core.errors import IceError
from ice_core.model.backbone import Prompt, TextFeatures, Token
from ice_core.standalone.tokenizer import END, START, piece_ids

if TYPE_CHECKING:
    from transformers import CLIPTextModel


class ClipText:
    """name: as in files of learned tokens ("clip_l"); module: taken over, set to eval and frozen."""

    def __init__(self, name: str, module: CLIPTextModel) -> None:
        self.name, self.module = name, module
        module.eval().requires_grad_(False)

    @property
    def _embedding(self) -> nn.Embedding:
        # Under `text_model.` up to transformers 4, at the top from 5 on: ask the model itself.
        return cast(nn.Embedding, self.module.get_input_embeddings())

    @property
    def widths(self) -> Mapping[str, int]:
        """{name: width of the embedding rows}."""
        return {self.name: self._embedding.embedding_dim}

    @property
    def context_length(self) -> int:
        """Positions of a prompt, start and end included."""
        return int(self.module.config.max_position_embeddings)

    def word_rows(self, text: str) -> dict[str, Tensor]:
        """{name: embedding-table rows [n, D]} of the pieces of a text."""
        weight = self._embedding.weight
        ids = torch.tensor(piece_ids(text), dtype=torch.long, device=weight.device)
        return {self.name: F.embedding(ids, weight)}

    def encode(self, prompts: Sequence[Prompt]) -> TextFeatures:
        """The last hidden states [B, L, D], normed, and as pooled those of the end tokens [B, D].

        Raises IceError for a prompt that is too long and for tokens of another encoder.
        """
        layouts = [self._lay_out(prompt) for prompt in prompts]
        weight = self._embedding.weight
        ids = torch.tensor([ids for ids, _ in layouts], device=weight.device)
        columns = tuple(columns for _, columns in layouts)
        places, rows = [], []
        for b, (prompt, spans) in enumerate(zip(prompts, columns, strict=True)):
            for part, span in zip(prompt.parts, spans, strict=True):
                if isinstance(part, Token):
                    places += [(b, position) for position in span]
                    rows.append(part.rows[self.name].to(weight.device, weight.dtype))

        def inject(module: nn.Module, args: Any, embedded: Tensor) -> Tensor:
            at = torch.tensor(places, device=embedded.device)
            return embedded.index_put((at[:, 0], at[:, 1]), torch.cat(rows))

        hook = self._embedding.register_forward_hook(inject) if places else None
        try:
            hidden = self.module(input_ids=ids).last_hidden_state
        finally:
            if hook is not None:
                hook.remove()
        ends = torch.tensor([1 + sum(map(len, spans)) for spans in columns], device=hidden.device)
        return TextFeatures(hidden, hidden[torch.arange(len(ends), device=hidden.device), ends], columns)

    def state(self) -> dict[str, Tensor]:
        """The weights, keys relative to `text_model.` (see ldm.text_state_to_open_clip)."""
        return {k.removeprefix("text_model."): v for k, v in self.module.state_dict().items()}

    def _lay_out(self, prompt: Prompt) -> tuple[list[int], tuple[tuple[int, ...], ...]]:
        """Padded ids of the context and the positions of every part; a token's own ids are placeholders."""
        ids, columns = [START], []
        for part in prompt.parts:
            new = [END] * len(self._rows(part)) if isinstance(part, Token) else piece_ids(part)
            columns.append(tuple(range(len(ids), len(ids) + len(new))))
            ids += new
        room = self.context_length - 2
        if len(ids) - 1 > room:
            raise IceError(
                f"the prompt {prompt.text[:60]!r} has {len(ids) - 1} tokens, this model takes {room}: "
                f"shorten it"
            )
        return ids + [END] * (self.context_length - len(ids)), tuple(columns)

    def _rows(self, token: Token) -> Tensor:
        width = self._embedding.embedding_dim
        shapes = {encoder: tuple(rows.shape) for encoder, rows in token.rows.items()}
        shape = shapes.get(self.name, ())
        if len(shape) != 2 or shape[1] != width:
            raise IceError(
                f"the token {token.name!r} has rows {shapes}, this model needs {self.name} of width {width}: "
                f"the token was made for another base model"
            )
        return token.rows[self.name]
