"""The Backbone on diffusers and transformers, for the command line, tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ice_core.errors import IceError
from ice_core.model.attention import AttentionRecorder
from ice_core.model.backbone import Prompt, TextFeatures, all_lora_targets
from ice_core.model.lora import Lora, LoraTarget, applied, targets_of
from ice_core.standalone.architecture import Architecture
from ice_core.standalone.attention import adaptable_layers, make_recordable
from ice_core.standalone.schedule import signal_variances

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


class TextEncoder(Protocol):
    """What a model is told the prompt by: one encoder or several that are read together."""

    @property
    def adaptable(self) -> Mapping[str, nn.Linear]:
        """The projections of every attention, by the names a LoRA has for them."""

    @property
    def widths(self) -> Mapping[str, int]:
        """Width of the embedding rows by encoder, for example {"clip_l": 768}."""

    def word_rows(self, text: str) -> dict[str, Tensor]:
        """Embedding-table rows {encoder: [n, D]} of the pieces of a text."""

    def encode(self, prompts: Sequence[Prompt], contexts: int | None = None) -> TextFeatures:
        """`Backbone.encode_prompts`; `extra` is what the U-Net takes as diffusers' `added_cond_kwargs`."""

    def state(self) -> dict[str, Tensor]:
        """The weights by name."""


class StandaloneBackbone:
    """A latent diffusion U-Net with its autoencoder and its text encoder as a Backbone; see
    ice_core.model.backbone for what each member promises.

    The modules are taken over: set to eval, frozen, and the U-Net's attention made recordable.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL | AutoencoderTiny,
        text: TextEncoder,
        details: Architecture,
        name: str,
        fingerprint: Callable[[], str],
    ) -> None:
        self.unet, self.vae, self.text = unet, vae, text
        self.name = name
        self._details, self._fingerprint = details, fingerprint
        for module in (unet, vae):
            module.eval().requires_grad_(False)
        make_recordable(unet)
        self._adaptable = adaptable_layers(unet)
        self._lora: Lora | None = None
        self._saves_memory = False
        self._alphas_cumprod = signal_variances(details.zero_terminal)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the checkpoint file, computed when first asked for."""
        return self._fingerprint()

    @property
    def architecture(self) -> str:
        return self._details.family

    @property
    def encoders(self) -> Mapping[str, int]:
        return self.text.widths

    @property
    def factor(self) -> int:
        return self._details.factor

    @property
    def channels(self) -> int:
        return int(self._details.vae["latent_channels"])

    @property
    def multiple(self) -> int:
        return self._details.multiple

    @property
    def native_size(self) -> int:
        return self._details.native_size

    @property
    def prediction(self) -> Literal["epsilon", "v_prediction"]:
        return self._details.prediction

    @property
    def alphas_cumprod(self) -> Tensor:
        return self._alphas_cumprod

    @property
    def device(self) -> torch.device:
        # diffusers' own property walks through all modules, at every pass.
        return self.unet.conv_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are kept and computed in."""
        return self.unet.conv_in.weight.dtype

    @property
    def saves_memory(self) -> bool:
        return self._saves_memory

    @cached_property
    def lora_targets(self) -> Mapping[str, LoraTarget]:
        return targets_of(self._adaptable)

    @cached_property
    def text_lora_targets(self) -> Mapping[str, LoraTarget]:
        return targets_of(self.text.adaptable)

    def checkpoint_gradients(self) -> None:
        """From now on compute the U-Net's activations again in the backward pass instead of keeping them:
        the same gradients, less memory, more time."""

        def run(block: Callable[..., Any], *args: Any) -> Any:
            lora = self._lora
            return checkpoint(
                block,
                *args,
                use_reentrant=False,
                preserve_rng_state=False,
                # By then the LoRA of the call is no longer applied.
                context_fn=lambda: (nullcontext(), applied(self._adaptable, lora)),
            )

        self.unet.enable_gradient_checkpointing(run)
        self._saves_memory = True

    def encode_image(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise IceError(
                f"the picture is {width} x {height}; this model needs sides that are multiples of "
                f"{self.multiple}: resize or crop it"
            )
        encoded = self.vae.encode(images.to(self.device, self.dtype) * 2 - 1)
        latents = encoded.latents if self._details.vae_kind == "tiny" else encoded.latent_dist.mean
        scale, shift = self._latent_scale
        return (latents - shift) * scale

    def decode_latent(self, latents: Tensor) -> Tensor:
        scale, shift = self._latent_scale
        latents = latents.to(self.device, self.dtype) / scale + shift
        return (self.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)

    @property
    def _latent_scale(self) -> tuple[float, float]:
        """diffusers' scaling and shift factor: the denoiser's latents are (z - shift) * scale."""
        config = self.vae.config
        return config["scaling_factor"], config["shift_factor"] or 0.0

    def word_rows(self, text: str) -> dict[str, Tensor]:
        return self.text.word_rows(text)

    def encode_prompts(
        self, prompts: Sequence[Prompt], contexts: int | None = None, lora: Lora | None = None
    ) -> TextFeatures:
        if lora is not None and (lora := lora.part(self.text_lora_targets)):
            lora = lora.to(self.device)
        with applied(self.text.adaptable, lora):
            return self.text.encode(prompts, contexts)

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: TextFeatures,
        recorder: AttentionRecorder | None = None,
        lora: Lora | None = None,
    ) -> Tensor:
        noisy = noisy.to(self.device, self.dtype)
        text = text.repeat(len(noisy)) if len(text.context) == 1 else text
        extra = self._sizes(noisy)
        extra |= {name: value.to(self.device, self.dtype) for name, value in text.extra.items()}
        if lora is not None:
            lora.check(all_lora_targets(self), self.name)
            lora = lora.part(self.lora_targets)
        if lora is not None:
            lora = lora.to(self.device)
        self._lora = lora
        with applied(self._adaptable, lora):
            return self.unet(
                noisy,
                timesteps.to(self.device),
                encoder_hidden_states=text.context.to(self.device, self.dtype),
                added_cond_kwargs=extra or None,
                cross_attention_kwargs=None if recorder is None else {"recorder": recorder},
            ).sample

    def _sizes(self, noisy: Tensor) -> dict[str, Tensor]:
        """What a U-Net that asks for sizes is told, [B, 6]: height and width of the picture, cut at 0 and 0,
        and once more as those that are wanted. Hosts say the same of what they draw."""
        if self.unet.config["addition_embed_type"] != "text_time":
            return {}
        height, width = (side * self.factor for side in noisy.shape[-2:])
        sizes = torch.tensor([height, width, 0, 0, height, width], device=self.device, dtype=torch.float32)
        return {"time_ids": sizes.expand(len(noisy), -1)}
