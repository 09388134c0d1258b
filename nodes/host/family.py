"""What a model family must say to be used: which models are of it, what denoises and what reads the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ice_core.model.attention import AttentionRecorder
from ice_core.model.backbone import Prompt, TextFeatures
from ice_core.model.lora import Lora, LoraTarget

ONLY = "ICE works with Stable Diffusion 1.x, 2.x and XL models that make pictures of text: load one of those"

Prediction = Literal["epsilon", "v_prediction"]


class Denoiser(Protocol):
    """The host's MODEL. Members without a docstring promise what those of Backbone do."""

    @property
    def patcher(self) -> Any:
        """The host's ModelPatcher."""

    @property
    def text_width(self) -> int:
        """How wide the text is that the model listens to."""

    @property
    def cells(self) -> int:
        """Latent sides must be multiples of this many cells."""

    @property
    def channels(self) -> int: ...

    @property
    def prediction(self) -> Prediction: ...

    @property
    def alphas_cumprod(self) -> Tensor: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def lora_targets(self) -> Mapping[str, LoraTarget]: ...

    @property
    def free_memory(self) -> int:
        """Bytes on its device that will be free once its weights are there."""

    @property
    def itemsize(self) -> int:
        """Bytes of a number that it computes with."""

    saves_memory: bool
    """Whether its blocks are computed again in the backward pass; off until it is set."""

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: TextFeatures,
        recorder: AttentionRecorder | None,
        lora: Lora | None,
    ) -> Tensor:
        """Backbone.predict; terms of a LoRA that are of other layers are left alone."""


class Text(Protocol):
    """The host's CLIP, which may hold several encoders that are read together."""

    @property
    def patcher(self) -> Any:
        """The host's ModelPatcher."""

    @property
    def widths(self) -> Mapping[str, int]:
        """Width of the embedding rows by encoder, for example {"clip_l": 768}."""

    def word_rows(self, text: str) -> dict[str, Tensor]:
        """Embedding rows {encoder: [n, D]} of a text's pieces."""

    @property
    def lora_targets(self) -> Mapping[str, LoraTarget]: ...

    def encode(
        self,
        prompts: Sequence[Prompt],
        device: torch.device,
        contexts: int | None = None,
        lora: Lora | None = None,
    ) -> TextFeatures:
        """Features of the prompts, contexts of the first `contexts` of them (None: all) as Backbone has it;
        `extra` is what the family's denoiser is told beside it. Terms of a LoRA that are of other layers are
        left alone."""

    def conditioning(self, prompt: Prompt) -> Any:
        """The host's CONDITIONING of a prompt, as CLIP Text Encode makes it: weights such as (red:1.2) and
        `embedding:` names in the text work, prompts of any length go on in further sections."""


@dataclass(frozen=True)
class Variant:
    """architecture: the model-spec name; native_size: side in pixels; kept: bytes that autograd keeps of the
    U-Net per noisy copy and latent cell, in 16 bits (`benchmarks/memory_budget.py`)."""

    architecture: str
    native_size: int
    kept: int


@dataclass(frozen=True)
class Family:
    """variants: by what a model predicts; title: for people; tokens: keys of the host's tokens by which a
    CLIP is known; recognises: whether a MODEL is of the family; denoiser and text: made of a MODEL and a CLIP
    that are (IceError where they are of a kind that cannot be used)."""

    variants: Mapping[Prediction, Variant]
    title: str
    tokens: frozenset[str]
    recognises: Callable[[Any], bool]
    denoiser: Callable[[Any], Denoiser]
    text: Callable[[Any], Text]
