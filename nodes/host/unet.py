"""The host's U-Net as a denoiser.

Only the host's public ways are used: `apply_model`, attention replacements in `transformer_options`, model
management. Nothing is patched but for gradient checkpointing, see `recomputing.py`. LoRAs and attention
patches that are on the wire stay in effect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property, partial
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.utils
import torch
from comfy.cli_args import args as host_options
from comfy.ldm.modules.attention import SpatialTransformer, attention_pytorch, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

from ice_core.errors import IceError
from ice_core.model.attention import AttentionRecorder, Kind
from ice_core.model.backbone import TextFeatures
from ice_core.model.lora import PROJECTIONS, Lora, LoraTarget, applied, kohya_name, targets_of

from .family import ONLY, Prediction
from .recomputing import blocks_of, recomputed
from .weights import load, make_differentiable

_PREDICTIONS: dict[Any, Prediction] = {
    comfy.model_base.ModelType.EPS: "epsilon",
    comfy.model_base.ModelType.V_PREDICTION: "v_prediction",
}


_OVERRIDE = "optimized_attention_override"
"""What the host calls in place of its attention, where a patch on the wire does not say otherwise."""
_ATTENTION_IS_CHOSEN = host_options.use_split_cross_attention or host_options.use_quad_cross_attention
"""Whether the host was started with an attention that saves memory."""


class UNet:
    """A MODEL whose diffusion model is the host's UNetModel; see nodes/host/family.py for its members.

    Raises IceError where it predicts neither noise nor velocity, or takes more than a picture's latents.
    """

    def __init__(self, model: Any) -> None:
        inner = model.model
        if inner.model_type not in _PREDICTIONS:
            raise IceError(f"the model predicts {inner.model_type.name}, not noise or velocity; {ONLY}")
        taken = inner.model_config.unet_config["in_channels"]
        if taken != inner.latent_format.latent_channels:
            raise IceError(f"the model takes {taken} channels: it is made for inpainting or editing; {ONLY}")
        self._patcher = model.clone()
        self._unet: UNetModel = inner.diffusion_model
        self._blocks = tuple(_transformer_blocks(self._unet))
        self._differentiable = False
        self.saves_memory = False

    @property
    def patcher(self) -> Any:
        return self._patcher

    @property
    def free_memory(self) -> int:
        device = self._patcher.load_device
        missing = max(0, self._patcher.model_size() - self._patcher.loaded_size())
        return int(comfy.model_management.get_free_memory(device)) - int(missing)

    @property
    def itemsize(self) -> int:
        return int((self._inner.manual_cast_dtype or self._inner.get_dtype()).itemsize)

    @property
    def _inner(self) -> Any:
        return self._patcher.model

    @property
    def text_width(self) -> int:
        return int(self._inner.model_config.unet_config.get("context_dim") or 0)

    @property
    def cells(self) -> int:
        return int(2 ** (len(self._inner.model_config.unet_config["channel_mult"]) - 1))

    @property
    def channels(self) -> int:
        return int(self._inner.latent_format.latent_channels)

    @property
    def prediction(self) -> Prediction:
        return _PREDICTIONS[self._inner.model_type]

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        return 1 / (1 + self._sigmas.float().cpu().double() ** 2).float()

    @property
    def device(self) -> torch.device:
        return torch.device(self._patcher.load_device)

    @property
    def _sigmas(self) -> Tensor:
        sampling = self._patcher.get_model_object("model_sampling")
        return sampling.sigmas.clone() if sampling.sigmas.is_inference() else sampling.sigmas

    @cached_property
    def lora_targets(self) -> Mapping[str, LoraTarget]:
        return targets_of(self._projections)

    @cached_property
    def _recomputable(self) -> tuple[nn.Module, ...]:
        return blocks_of(self._unet)

    @cached_property
    def _projections(self) -> dict[str, nn.Linear]:
        """Attention projections of the U-Net by their names in LoRA files."""
        names = comfy.utils.unet_to_diffusers(self._inner.model_config.unet_config)
        ends = tuple(f".attn{n}.{leaf}.weight" for n in (1, 2) for leaf in PROJECTIONS)
        layers = dict(self._unet.named_modules())
        return {
            kohya_name(theirs.removesuffix(".weight")): layers[ours.removesuffix(".weight")]
            for theirs, ours in sorted(names.items())
            if theirs.endswith(ends)
        }

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: TextFeatures,
        recorder: AttentionRecorder | None,
        lora: Lora | None,
    ) -> Tensor:
        load(self._patcher, self._patcher.memory_required([2 * len(noisy), *noisy.shape[1:]]))
        self._differentiable = self._differentiable or make_differentiable(self._patcher)
        noisy = noisy.to(self.device).float()
        text = text.repeat(len(noisy)) if len(text.context) == 1 else text
        sigma = self._sigmas.to(self.device)[timesteps.to(self.device)].float()
        wide = sigma.view(-1, 1, 1, 1)
        # The host's x at noise level sigma is x_0 + sigma * noise; it answers with x_0.
        scaled = noisy * (1 + wide**2).sqrt()
        options = self._patcher.model_options["transformer_options"]
        if self.device.type == "cpu" and not _ATTENTION_IS_CHOSEN:
            options = {_OVERRIDE: _torch_attention, **options}
        if recorder is not None:
            options = self._recording(options, recorder)
        if lora is not None and (lora := lora.part(self.lora_targets)):
            lora = lora.to(self.device)
        with ExitStack() as stack:
            stack.enter_context(applied(self._projections, lora))
            if self.saves_memory and torch.is_grad_enabled():
                # By then the LoRA of the call is no longer applied.
                again = partial(applied, self._projections, lora)
                stack.enter_context(recomputed(self._recomputable, again))
            original = self._inner.apply_model(
                scaled,
                sigma,
                c_crossattn=text.context.to(self.device),
                transformer_options=options.copy(),
                **self.told(noisy, text),
            )
        noise = (scaled - original) / wide
        if self.prediction == "epsilon":
            return noise
        return (noise - wide * original) / (1 + wide**2).sqrt()

    def told(self, noisy: Tensor, text: TextFeatures) -> dict[str, Tensor]:
        """What `apply_model` takes beside the context, by its names, for noisy latents [B, C, h, w]."""
        return {}

    def _recording(self, options: Mapping[str, Any], recorder: AttentionRecorder) -> dict[str, Any]:
        """`options` with replacements that record and then attend as the model would."""
        replace = {
            kind: dict(options.get("patches_replace", {}).get(kind, {})) for kind in ("attn1", "attn2")
        }
        kinds: dict[str, Kind] = {"attn1": "self", "attn2": "cross"}
        for block in self._blocks:
            for name, kind in kinds.items():
                theirs = replace[name].get(block) or replace[name].get(block[:2])
                replace[name][block] = _recorded(recorder, kind, theirs)
        return {**options, "patches_replace": {**options.get("patches_replace", {}), **replace}}


def _torch_attention(_: Callable[..., Tensor], *args: Any, **settings: Any) -> Tensor:
    """The host's attention by PyTorch. On a processor the host attends piece by piece to save memory that is
    not short there, and pays for it in time, with gradients most of all."""
    attended: Tensor = attention_pytorch(*args, **settings)
    return attended


def _recorded(recorder: AttentionRecorder, kind: Kind, theirs: Callable[..., Tensor] | None) -> Any:
    """An attention replacement: records, then attends as the user's own replacement or the host would."""

    def attend(query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> Tensor:
        heads = options["n_heads"]
        height, width = options["activations_shape"][2:4]
        if recorder.wants(kind, (height, width)):
            q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key))
            recorder.record(kind, (height, width), q, k, q.shape[-1] ** -0.5)
        if theirs is not None:
            return theirs(query, key, value, options)
        return optimized_attention(
            query, key, value, heads, attn_precision=options["attn_precision"], transformer_options=options
        )

    return attend


def _transformer_blocks(unet: UNetModel) -> Iterator[tuple[str, int, int]]:
    """(block, number, transformer) of every attention block, as attention replacements are addressed."""
    groups = (("input", unet.input_blocks), ("middle", [unet.middle_block]), ("output", unet.output_blocks))
    for name, blocks in groups:
        for number, block in enumerate(blocks):
            for layer in block or ():
                if isinstance(layer, SpatialTransformer):
                    yield from ((name, number, i) for i in range(len(layer.transformer_blocks)))
