"""The Backbone of the model, CLIP and VAE that the host has already loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ice_core.errors import IceError
from ice_core.model.attention import AttentionRecorder
from ice_core.model.backbone import Prompt, TextFeatures, all_lora_targets
from ice_core.model.lora import Lora, LoraTarget

from .families import family_of_clip, family_of_model
from .family import Prediction, Variant
from .weights import fingerprint

_SHARE_FOR_TRAINING = 0.8
"""Of free memory, that training may fill: the rest is for workspaces and what the allocator cannot use."""


class ComfyBackbone:
    """A loaded model as a Backbone; see ice_core.model.backbone for what each member promises.

    model, clip, vae: the host's MODEL, CLIP and VAE wires. LoRAs and attention patches that are on the
    wires stay in effect. Raises IceError for models of families that are not known (nodes/host/families.py)
    and for wires that do not belong together.
    """

    def __init__(self, model: Any, clip: Any, vae: Any) -> None:
        self._family = family_of_model(model)
        self._denoiser = self._family.denoiser(model)
        self._text, self._vae = family_of_clip(clip).text(clip), vae
        width = sum(self._text.widths.values())
        if self._denoiser.text_width != width:
            raise IceError(
                f"the CLIP is {width} wide, but this model listens to text of width "
                f"{self._denoiser.text_width}: connect the CLIP of the same checkpoint"
            )

    @property
    def _inner(self) -> Any:
        return self._denoiser.patcher.model

    @property
    def _variant(self) -> Variant:
        return self._family.variants[self.prediction]

    def _said(self, key: str, default: Any) -> Any:
        """What a model that this pack made says of itself, by the attributes of its class."""
        return vars(type(self._inner.model_config)).get(key, default)

    @property
    def name(self) -> str:
        """The class of the model: a wire does not say what file it was loaded from."""
        return str(self._said("ice_name", self._family.title))

    @cached_property
    def fingerprint(self) -> str:
        """Of every weight, and of the patches on the wires."""
        return fingerprint([self._denoiser.patcher, self._text.patcher])

    @property
    def architecture(self) -> str:
        return self._variant.architecture

    @property
    def encoders(self) -> Mapping[str, int]:
        return self._text.widths

    @property
    def factor(self) -> int:
        return int(self._vae.spacial_compression_encode())

    @property
    def channels(self) -> int:
        return self._denoiser.channels

    @property
    def multiple(self) -> int:
        return self.factor * self._denoiser.cells

    @property
    def native_size(self) -> int:
        return int(self._said("ice_native_size", self._variant.native_size))

    @property
    def prediction(self) -> Prediction:
        return self._denoiser.prediction

    @property
    def alphas_cumprod(self) -> Tensor:
        return self._denoiser.alphas_cumprod

    @property
    def device(self) -> torch.device:
        return self._denoiser.device

    @property
    def saves_memory(self) -> bool:
        return self._denoiser.saves_memory

    def checkpoint_gradients(self) -> None:
        """From now on compute the U-Net's activations again in the backward pass instead of keeping them:
        the same gradients, less memory, more time."""
        self._denoiser.saves_memory = True

    def has_room_for(self, copies: int, height: int, width: int) -> bool:
        """Whether free memory holds what training keeps of so many noisy copies of a picture in pixels."""
        cells = height * width // self.factor**2
        kept = copies * cells * self._variant.kept * self._denoiser.itemsize / 2
        return kept <= _SHARE_FOR_TRAINING * self._denoiser.free_memory

    @property
    def lora_targets(self) -> Mapping[str, LoraTarget]:
        return self._denoiser.lora_targets

    @property
    def text_lora_targets(self) -> Mapping[str, LoraTarget]:
        return self._text.lora_targets

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise IceError(
                f"the picture is {width} x {height}; this model needs sides that are multiples of "
                f"{self.multiple}: resize or crop it"
            )
        latents = self._vae.encode(images.movedim(1, -1).float().cpu())
        return self._inner.process_latent_in(latents).to(self.device)

    @torch.no_grad()
    def decode_latent(self, latents: Tensor) -> Tensor:
        raw = self._inner.process_latent_out(latents.float())
        pictures = self._vae.decode(raw.to(self._vae.output_device))
        return pictures.movedim(-1, 1).clamp(0, 1).to(self.device)

    def word_rows(self, text: str) -> dict[str, Tensor]:
        return {name: rows.to(self.device) for name, rows in self._text.word_rows(text).items()}

    def encode_prompts(
        self, prompts: Sequence[Prompt], contexts: int | None = None, lora: Lora | None = None
    ) -> TextFeatures:
        return self._text.encode(prompts, self.device, contexts, lora)

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: TextFeatures,
        recorder: AttentionRecorder | None = None,
        lora: Lora | None = None,
    ) -> Tensor:
        if lora is not None:
            lora.check(all_lora_targets(self), self.name)
        return self._denoiser.predict(noisy, timesteps, text, recorder, lora)
