"""A CLIP text encoder of transformers, for prompts that hold learned tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ice_core.errors import IceError
from ice_core.model.backbone import Prompt, TextFeatures, Token
from ice_core.model.lora import TEXT, text_projections
from ice_core.standalone.tokenizer import END, START, piece_ids

if TYPE_CHECKING:
    from transformers import CLIPTextModel


class _Layout(NamedTuple):
    """ids: from start to end, a token's own being placeholders; columns: the positions of every part."""

    ids: list[int]
    columns: tuple[tuple[int, ...], ...]


class ClipText:
    """name: as in files of learned tokens ("clip_l"); module: taken over, set to eval and frozen.

    layers_early: of how many last layers the context leaves out; normalized: whether the final norm is
    applied to it; padding: id that fills a prompt up; projection: [P, D] of the pooled features, which are
    the last layer's all the same; in_loras: what its layers' names begin with there.
    """

    def __init__(
        self,
        name: str,
        module: CLIPTextModel,
        layers_early: int = 0,
        normalized: bool = True,
        padding: int = END,
        projection: Tensor | None = None,
        in_loras: str = TEXT[0],
    ) -> None:
        self.in_loras = in_loras
        self.name, self.module, self.projection = name, module, projection
        self._layers_early, self._normalized, self._padding = layers_early, normalized, padding
        module.eval().requires_grad_(False)

    @property
    def _embedding(self) -> nn.Embedding:
        # Under `text_model.` up to transformers 4, at the top from 5 on: ask the model itself.
        return cast(nn.Embedding, self.module.get_input_embeddings())

    @property
    def _inner(self) -> Any:
        return getattr(self.module, "text_model", self.module)

    @cached_property
    def adaptable(self) -> dict[str, nn.Linear]:
        """The projections of every attention, by the names a LoRA has for them."""
        return text_projections(self.in_loras, self._inner.encoder.layers)

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

    def encode(self, prompts: Sequence[Prompt], contexts: int | None = None) -> TextFeatures:
        """What `Backbone.encode_prompts` promises.

        A context is padded: the denoiser reads the padding too. Where only some contexts are wanted, all
        prompts go through end to end as one sequence, the others without padding, and attention stays
        inside each: small batches cost a processor the operations and hardly the numbers. Every prompt
        starts with the same token, which sees itself only: those without padding share the first one's.
        """
        layouts = [self._lay_out(prompt) for prompt in prompts]
        length, padded = self.context_length, len(prompts[:contexts])
        bare = enumerate(layouts[padded:], padded)
        spans = [range(length)] * padded + [range(min(i, 1), len(layout.ids)) for i, layout in bare]
        starts = [sum(map(len, spans[:i])) for i in range(len(spans))]
        embedded = self._embed(prompts, layouts, spans)
        if padded == len(prompts):
            hidden, last = self._transform(embedded.view(padded, length, -1), [range(length)])
        else:
            hidden, last = self._transform(embedded[None], spans)
        context = hidden.flatten(0, 1)[: length * padded].view(padded, length, hidden.shape[-1])
        if self._normalized:
            context = self._inner.final_layer_norm(context)
        ends = [
            start + len(layout.ids) - 1 - span.start
            for start, layout, span in zip(starts, layouts, spans, strict=True)
        ]
        pooled = self._inner.final_layer_norm(last.flatten(0, 1)[torch.tensor(ends, device=last.device)])
        if self.projection is not None:
            pooled = F.linear(pooled, self.projection)
        return TextFeatures(context, pooled, tuple(layout.columns for layout in layouts))

    def _embed(self, prompts: Sequence[Prompt], layouts: Sequence[_Layout], spans: Sequence[range]) -> Tensor:
        """These positions of the prompts, end to end, as what the first layer takes [N, D]."""
        table, positions = self._embedding.weight, self._inner.embeddings.position_embedding.weight
        ids: list[int] = []
        places: list[int] = []
        rows = []
        for prompt, layout, span in zip(prompts, layouts, spans, strict=True):
            for part, columns in zip(prompt.parts, layout.columns, strict=True):
                if isinstance(part, Token):
                    places += [len(ids) + column - span.start for column in columns]
                    rows.append(part.rows[self.name].to(table.device, table.dtype))
            ids += (layout.ids + [self._padding] * (span.stop - len(layout.ids)))[span.start :]
        embedded = F.embedding(torch.tensor(ids, device=table.device), table)
        if rows:
            at = torch.tensor(places, device=table.device)
            embedded = embedded.index_put((at,), torch.cat(rows))
        return embedded + torch.cat([positions[span.start : span.stop] for span in spans])

    def _transform(self, embedded: Tensor, spans: Sequence[range]) -> tuple[Tensor, Tensor]:
        """Hidden states [B, N, D] for the context, and those of the last layer, both before the final norm,
        of sequences that each hold these positions of prompts.

        A prompt without its first position sees the sequence's instead.
        """
        device = embedded.device
        starts = [sum(map(len, spans[:i])) for i, span in enumerate(spans) for _ in span]
        headless = torch.tensor([span.start > 0 for span in spans for _ in span], device=device)
        order = torch.arange(len(starts), device=device)
        own = order >= torch.tensor(starts, device=device)[:, None]
        seen = (own & (order <= order[:, None])) | (headless[:, None] & (order == 0))
        mask = torch.where(seen, 0.0, -torch.inf).to(embedded.dtype)[None, None]
        encoder, kept = self._inner.encoder, []

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            kept.append(output if isinstance(output, Tensor) else output[0])

        hook = encoder.layers[-1 - self._layers_early].register_forward_hook(keep)
        try:
            last = encoder(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        finally:
            hook.remove()
        return kept[0], last

    def state(self) -> dict[str, Tensor]:
        """The weights, keys relative to `text_model.` (see ldm.text_state_to_open_clip)."""
        return {k.removeprefix("text_model."): v for k, v in self.module.state_dict().items()}

    def _lay_out(self, prompt: Prompt) -> _Layout:
        ids, columns = [START], []
        for part in prompt.parts:
            new = [END] * len(self._rows_of(part)) if isinstance(part, Token) else piece_ids(part)
            columns.append(tuple(range(len(ids), len(ids) + len(new))))
            ids += new
        room = self.context_length - 2
        if len(ids) - 1 > room:
            raise IceError(
                f"the prompt {prompt.text[:60]!r} has {len(ids) - 1} tokens, this model takes {room}: "
                f"shorten it"
            )
        return _Layout([*ids, END], tuple(columns))

    def _rows_of(self, token: Token) -> Tensor:
        width = self._embedding.embedding_dim
        shapes = {encoder: tuple(rows.shape) for encoder, rows in token.rows.items()}
        shape = shapes.get(self.name, ())
        if len(shape) != 2 or shape[1] != width:
            raise IceError(
                f"the token {token.name!r} has rows {shapes}, this model needs {self.name} of width {width}: "
                f"the token was made for another base model"
            )
        return token.rows[self.name]
