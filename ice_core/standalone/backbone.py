"""The Backbone on diffusers and transformers, for the command line, tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ice_core.errors import IceError
from ice_core.model.attention import AttentionRecorder, Kind, Size
from ice_core.model.backbone import Prompt, TextFeatures, Token
from ice_core.model.lora import PROJECTIONS, Lora, LoraTarget, applied, kohya_name
from ice_core.standalone.architecture import Architecture
from ice_core.standalone.tokenizer import END, START, piece_ids

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextModel

ENCODER = "clip_l"


class StandaloneBackbone:
    """A Stable Diffusion 1 model as a Backbone; see ice_core.model.backbone for what each member promises.

    The modules are taken over: set to eval, frozen, and the U-Net's attention made recordable.
    """

    architecture = "stable-diffusion-v1"

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL | AutoencoderTiny,
        text_encoder: CLIPTextModel,
        details: Architecture,
        name: str,
        fingerprint: Callable[[], str],
    ) -> None:
        self.unet, self.vae, self.text_encoder = unet, vae, text_encoder
        self.name = name
        self._details, self._fingerprint = details, fingerprint
        for module in (unet, vae, text_encoder):
            module.eval().requires_grad_(False)
        make_recordable(unet)
        self._adaptable = adaptable_layers(unet)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self._alphas_cumprod = (1 - betas).cumprod(0).float()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the checkpoint file, computed when first asked for."""
        return self._fingerprint()

    @property
    def encoders(self) -> Mapping[str, int]:
        return {ENCODER: self._embedding.embedding_dim}

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
        return self._embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are kept and computed in."""
        return self._embedding.weight.dtype

    @property
    def lora_targets(self) -> Mapping[str, LoraTarget]:
        return {
            name: LoraTarget(name, layer.in_features, layer.out_features)
            for name, layer in self._adaptable.items()
        }

    @property
    def context_length(self) -> int:
        """Positions of a prompt, start and end included."""
        return int(self._details.text["max_position_embeddings"])

    @property
    def _embedding(self) -> nn.Embedding:
        # Under `text_model.` up to transformers 4, at the top from 5 on: ask the model itself.
        return cast(nn.Embedding, self.text_encoder.get_input_embeddings())

    def text_state(self) -> dict[str, Tensor]:
        """The text tower's weights, keys relative to `text_model.` (see ldm.text_state_to_open_clip)."""
        state = self.text_encoder.state_dict()
        return {k.removeprefix("text_model."): v for k, v in state.items()}

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
        ids = torch.tensor(piece_ids(text), dtype=torch.long, device=self.device)
        return {ENCODER: F.embedding(ids, self._embedding.weight)}

    def encode_prompts(self, prompts: Sequence[Prompt]) -> TextFeatures:
        layouts = [self._lay_out(prompt) for prompt in prompts]
        ids = torch.tensor([ids for ids, _ in layouts], device=self.device)
        columns = tuple(columns for _, columns in layouts)
        places, rows = [], []
        for b, (prompt, spans) in enumerate(zip(prompts, columns, strict=True)):
            for part, span in zip(prompt.parts, spans, strict=True):
                if isinstance(part, Token):
                    places += [(b, position) for position in span]
                    rows.append(part.rows[ENCODER].to(self.device, self.dtype))

        def inject(module: nn.Module, args: Any, embedded: Tensor) -> Tensor:
            at = torch.tensor(places, device=embedded.device)
            return embedded.index_put((at[:, 0], at[:, 1]), torch.cat(rows))

        hook = self._embedding.register_forward_hook(inject) if places else None
        try:
            hidden = self.text_encoder(input_ids=ids).last_hidden_state
        finally:
            if hook is not None:
                hook.remove()
        ends = torch.tensor([1 + sum(map(len, spans)) for spans in columns], device=hidden.device)
        return TextFeatures(hidden, hidden[torch.arange(len(ends), device=hidden.device), ends], columns)

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
        shape = shapes.get(ENCODER, ())
        if len(shape) != 2 or shape[1] != width:
            raise IceError(
                f"the token {token.name!r} has rows {shapes}, this model needs {ENCODER} of width {width}: "
                f"the token was made for another base model"
            )
        return token.rows[ENCODER]

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: TextFeatures,
        recorder: AttentionRecorder | None = None,
        lora: Lora | None = None,
    ) -> Tensor:
        noisy = noisy.to(self.device, self.dtype)
        context = text.context.to(self.device, self.dtype)
        if len(context) == 1:
            context = context.expand(len(noisy), -1, -1)
        if lora is not None:
            lora.check(self.lora_targets, self.name)
            lora = lora.to(self.device)
        with applied(self._adaptable, lora):
            return self.unet(
                noisy,
                timesteps.to(self.device),
                encoder_hidden_states=context,
                cross_attention_kwargs=None if recorder is None else {"recorder": recorder},
            ).sample


class RecordableAttention:
    """Attention processor for one layer: memory-efficient, and beside it what a recorder asks for.

    `recorder` travels with the call (diffusers' `cross_attention_kwargs`), never in the model.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        recorder: AttentionRecorder | None = None,
        size: Size = (0, 0),
    ) -> Tensor:
        """hidden_states: [B, Q, C], Q = size[0] * size[1]; returns the same shape."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for x in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        if recorder is not None and recorder.wants(self.kind, size):
            recorder.record(self.kind, size, query, key, attn.scale)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=attn.scale)
        out = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return attn.to_out[1](out)


def adaptable_layers(unet: UNet2DConditionModel) -> dict[str, nn.Linear]:
    """The projections of every attention, by the names a LoRA has for them."""
    attentions = (name.removesuffix(".processor") for name in unet.attn_processors)
    paths = [f"{attention}.{projection}" for attention in attentions for projection in PROJECTIONS]
    return {kohya_name(path): cast(nn.Linear, unet.get_submodule(path)) for path in paths}


def make_recordable(unet: UNet2DConditionModel) -> None:
    """Install RecordableAttention everywhere; transformers tell their layers the activation's true size."""
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    kinds: dict[str, Kind] = {"attn1": "self", "attn2": "cross"}
    processors: dict[str, Any] = {
        name: RecordableAttention(kinds[name.split(".")[-2]]) for name in unet.attn_processors
    }
    unet.set_attn_processor(processors)

    def tell_size(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        passed = kwargs.get("cross_attention_kwargs")
        if not passed:
            return None
        height, width = (args[0] if args else kwargs["hidden_states"]).shape[-2:]
        return args, {**kwargs, "cross_attention_kwargs": {**passed, "size": (height, width)}}

    for module in unet.modules():
        if isinstance(module, Transformer2DModel):
            module.register_forward_pre_hook(tell_size, with_kwargs=True)
