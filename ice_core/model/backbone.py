"""The one seam: what the method needs of a text-to-image model, whoever hosts it.

Learned tokens are values. A prompt is words and tokens in order; a backbone puts a token's rows in the
place of embedding-table rows, so that nothing in the user's model or tokenizer is ever touched.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from ice_core.errors import IceError
from ice_core.model.attention import AttentionRecorder
from ice_core.model.lora import Lora, LoraTarget


@dataclass(frozen=True)
class Token:
    """A learned token: `rows` maps a text encoder's name ("clip_l") to embedding rows [n, D]."""

    name: str
    rows: Mapping[str, Tensor]

    def detach(self) -> Token:
        """The same values cut off from autograd, on the CPU, in float32."""
        return Token(self.name, {k: v.detach().float().cpu().clone() for k, v in self.rows.items()})


_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_WEIGHTED = re.compile(r"(.*\S)\s*:\s*(\d*\.?\d+)")


@dataclass(frozen=True)
class Prompt:
    """Text pieces and learned tokens, in order."""

    parts: tuple[str | Token, ...]

    @classmethod
    def parse(cls, text: str, tokens: Mapping[str, Token]) -> Prompt:
        """Turn "a photo of a {ball}" into a prompt; every `{name}` must be a key of `tokens`, capital letters
        aside.

        Raises IceError for an unknown placeholder, with the names that exist; for a property that a known
        object lacks, with those that it has; for weights and choices within the braces.
        """
        parts: list[str | Token] = []
        end = 0
        for match in _PLACEHOLDER.finditer(text):
            name = _meant(match.group(1).strip(), tokens)
            if name not in tokens:
                raise IceError(f"the prompt names {{{name}}}, {_unknown(name, tuple(tokens))}")
            parts += [text[end : match.start()].strip(), tokens[name]]
            end = match.end()
        parts.append(text[end:].strip())
        if "{" in (rest := "".join(p for p in parts if isinstance(p, str))) or "}" in rest:
            raise IceError(f"unbalanced braces in the prompt {text!r}; write {{name}} for a learned token")
        return cls(tuple(p for p in parts if p != ""))

    @staticmethod
    def placeholders(text: str) -> tuple[str, ...]:
        """The names in braces that `parse` would look for, in order."""
        return tuple(match.group(1).strip() for match in _PLACEHOLDER.finditer(text))

    @property
    def text(self) -> str:
        """The prompt as other tools take it: tokens as `embedding:ball_color`, the name of their file.

        A whole object is `embedding:ball`, a file of several rows."""
        names = (p if isinstance(p, str) else "embedding:" + p.name.replace(".", "_") for p in self.parts)
        return " ".join(names)


def _meant(name: str, known: Iterable[str]) -> str:
    """The known name that is the same but for capital letters, if there is one only; else the name itself.

    Raises IceError where the braces hold what other tools write into them.
    """
    if weighted := _WEIGHTED.fullmatch(name):
        inner, weight = weighted.groups()
        raise IceError(f"a weight stands outside the braces: write ({{{inner}}}:{weight}) for {{{name}}}")
    if "|" in name:
        raise IceError(f"{{{name}}} is a choice of words, which is not drawn here: write one of them")
    alike = [one for one in known if one.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else name


def _unknown(name: str, known: Sequence[str]) -> str:
    thing, _, role = name.rpartition(".")
    if thing in known:
        known = [one for one in known if one == thing or one.startswith(f"{thing}.")]
        problem = f"but {role!r} could not be read of this object, or was not asked for"
    else:
        problem = "which was not learned"
    return f"{problem}; there are: {', '.join(f'{{{one}}}' for one in known) or 'none'}"


def check_rows(prompts: Sequence[Prompt], encoders: Collection[str]) -> None:
    """Raise IceError for a token without rows for one of several encoders, or not with as many for each: its
    places in their contexts would not be the same."""
    for prompt in prompts:
        for part in prompt.parts:
            if isinstance(part, Token):
                counts = {name: len(part.rows[name]) if name in part.rows else 0 for name in encoders}
                if len(set(counts.values())) > 1:
                    have = ", ".join(f"{count} for {name}" for name, count in counts.items())
                    raise IceError(
                        f"the token {part.name!r} has {have} rows, but needs as many for each text encoder: "
                        "it was made for another base model, or its file is damaged"
                    )


@dataclass(frozen=True)
class TextFeatures:
    """What a denoiser is conditioned on, for B prompts.

    context: [B, L, D] hidden states, maybe of fewer prompts where fewer were asked for; pooled: [B, P]
    output at the end token (after the text projection where the encoder has one); columns: per prompt and
    per part, the positions of its tokens in 0..L-1; extra: whatever else this model takes, by name, batch
    first.
    """

    context: Tensor
    pooled: Tensor
    columns: tuple[tuple[tuple[int, ...], ...], ...]
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def repeat(self, n: int) -> TextFeatures:
        """Each prompt n times in a row (b0 b0 .. b1 b1 ..)."""
        if n == 1:
            return self
        return TextFeatures(
            self.context.repeat_interleave(n, 0),
            self.pooled.repeat_interleave(n, 0),
            tuple(c for c in self.columns for _ in range(n)),
            {k: v.repeat_interleave(n, 0) for k, v in self.extra.items()},
        )

    @staticmethod
    def join(parts: Sequence[TextFeatures]) -> TextFeatures:
        """Concatenate along the batch."""
        return TextFeatures(
            torch.cat([p.context for p in parts]),
            torch.cat([p.pooled for p in parts]),
            tuple(c for p in parts for c in p.columns),
            {k: torch.cat([p.extra[k] for p in parts]) for k in parts[0].extra},
        )


class Backbone(Protocol):
    """A text-to-image latent diffusion model. Weights are frozen; gradients reach tokens, latents and
    LoRAs."""

    @property
    def name(self) -> str:
        """For people: a file name or a title."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal hash of the weights, for caches and metadata."""

    @property
    def architecture(self) -> str:
        """Model-spec name of the base, for example "stable-diffusion-v1"."""

    @property
    def encoders(self) -> Mapping[str, int]:
        """Text encoders and the width of their embedding rows, for example {"clip_l": 768}."""

    @property
    def factor(self) -> int:
        """Pixels per latent cell, per side."""

    @property
    def channels(self) -> int:
        """Latent channels."""

    @property
    def multiple(self) -> int:
        """Picture sides must be multiples of this many pixels."""

    @property
    def native_size(self) -> int:
        """Side in pixels that the model was trained for."""

    @property
    def prediction(self) -> Literal["epsilon", "v_prediction"]:
        """What `predict` returns."""

    @property
    def alphas_cumprod(self) -> Tensor:
        """Signal variance [T] per timestep of x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise; float32, CPU."""

    @property
    def device(self) -> torch.device:
        """Where latents and features live."""

    @property
    def saves_memory(self) -> bool:
        """Whether memory is shorter than time: activations are computed again in the backward pass instead
        of kept, and who trains keeps passes small where the gradients stay the same."""

    @property
    def lora_targets(self) -> Mapping[str, LoraTarget]:
        """The denoiser's layers that `predict` can adapt, by name: every attention's projections of
        queries, keys and values and of what comes out."""

    @property
    def text_lora_targets(self) -> Mapping[str, LoraTarget]:
        """The text encoders' layers that `encode_prompts` can adapt, by name."""

    def encode_image(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in 0..1 -> scaled latents [B, C, H / factor, W / factor] (posterior mean)."""

    def decode_latent(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, C, h, w] -> pictures [B, 3, h * factor, w * factor] in 0..1."""

    def word_rows(self, text: str) -> dict[str, Tensor]:
        """Embedding-table rows {encoder: [n, D]} of the n pieces the tokenizer makes of `text`."""

    def encode_prompts(
        self, prompts: Sequence[Prompt], contexts: int | None = None, lora: Lora | None = None
    ) -> TextFeatures:
        """Text features of B prompts. Raises IceError when one is longer than the encoder's context.

        contexts: of how many of the first prompts the context is wanted (None: all). The others cost less
        where an encoder can do without their padding. Terms of a LoRA that are of text encoders adapt them
        for this call.
        """

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: TextFeatures,
        recorder: AttentionRecorder | None = None,
        lora: Lora | None = None,
    ) -> Tensor:
        """Noise or v [B, C, h, w] predicted for x_t `noisy` at integer `timesteps` [B].

        A recorder is handed the queries and keys of the attention it wants; the output is bit-identical
        with and without it. A LoRA adapts the denoiser for this call and leaves no trace in it; its terms of
        text encoders are for `encode_prompts`. Raises IceError for a LoRA of layers that are no targets.
        """


def all_lora_targets(backbone: Backbone) -> dict[str, LoraTarget]:
    """Every layer that a LoRA can adapt, of the denoiser and of the text encoders."""
    return {**backbone.lora_targets, **backbone.text_lora_targets}
