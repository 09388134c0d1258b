"""ComfyUI's side of the Backbone: the model, CLIP and VAE that the host has already loaded.

Only the host's public ways are used: tokens with tensors in them, `apply_model`, attention replacements in
`transformer_options`, model management. Nothing is patched, and no value of any weight changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any, Literal

import comfy.model_base
import comfy.model_management
import comfy.utils
import torch
from comfy.ldm.modules.attention import SpatialTransformer, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

from ice_core.concepts import LearnedConcepts
from ice_core.errors import IceError
from ice_core.model.attention import AttentionRecorder, Kind
from ice_core.model.backbone import Prompt, TextFeatures, Token
from ice_core.model.lora import PROJECTIONS, Lora, LoraTarget, applied, kohya_name

ENCODER, _KEY = "clip_l", "l"
"""Stable Diffusion 1's text encoder: its name in files and its key in the host's tokens."""
_PREDICTIONS: dict[Any, Literal["epsilon", "v_prediction"]] = {
    comfy.model_base.ModelType.EPS: "epsilon",
    comfy.model_base.ModelType.V_PREDICTION: "v_prediction",
}
_ONLY = "ICE works with Stable Diffusion 1.x models for now: load such a checkpoint"
_MARK = "\ue000"
"""A private character: its pieces in a tokenized prompt mark the place of a learned token."""


@contextmanager
def gradients() -> Iterator[None]:
    """Leaves the executor's inference mode, so that tokens can be learned."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


class ComfyBackbone:
    """A loaded Stable Diffusion 1 model as a Backbone; see ice_core.model.backbone for what they promise.

    model, clip, vae: the host's MODEL, CLIP and VAE wires. LoRAs and attention patches that are on the
    wires stay in effect. Raises IceError for a model of another family.
    """

    architecture = "stable-diffusion-v1"

    def __init__(self, model: Any, clip: Any, vae: Any) -> None:
        check_model(model)
        _check_clip(clip)
        self._model, self._vae = model.clone(), vae
        self._text = _TextEncoder(clip)
        width = model.model.model_config.unet_config.get("context_dim")
        if width != self._text.width:
            raise IceError(
                f"the CLIP is {self._text.width} wide, but this model listens to text of width {width}: "
                "connect the CLIP of the same checkpoint"
            )
        self._unet: UNetModel = model.model.diffusion_model
        self._differentiable = False
        self._blocks = tuple(_transformer_blocks(self._unet))

    @property
    def name(self) -> str:
        """The class of the model: a wire does not say what file it was loaded from."""
        return str(vars(type(self._model.model.model_config)).get("ice_name", "Stable Diffusion 1 model"))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of samples of every weight, and of the patches on the wires."""
        digest = hashlib.sha256()
        for patcher in (self._model, self._text.clip.patcher):
            for name, weight in sorted(patcher.model.state_dict().items()):
                digest.update(f"{name}{tuple(weight.shape)}".encode() + _samples(weight))
            for name, patches in sorted(patcher.patches.items(), key=lambda item: str(item[0])):
                for strength, patch, *_ in patches:
                    digest.update(f"{name}{strength}".encode())
                    for weight in _tensors_of(patch):
                        digest.update(_samples(weight))
        return digest.hexdigest()

    @property
    def encoders(self) -> Mapping[str, int]:
        return {ENCODER: self._text.width}

    @property
    def factor(self) -> int:
        return int(self._vae.spacial_compression_encode())

    @property
    def channels(self) -> int:
        return int(self._model.model.latent_format.latent_channels)

    @property
    def multiple(self) -> int:
        return self.factor * 2 ** (len(self._model.model.model_config.unet_config["channel_mult"]) - 1)

    @property
    def native_size(self) -> int:
        return int(vars(type(self._model.model.model_config)).get("ice_native_size", 512))

    @property
    def prediction(self) -> Literal["epsilon", "v_prediction"]:
        return _PREDICTIONS[self._model.model.model_type]

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        return 1 / (1 + self._sigmas.float().cpu().double() ** 2).float()

    @property
    def device(self) -> torch.device:
        return torch.device(self._model.load_device)

    @property
    def _sigmas(self) -> Tensor:
        sampling = self._model.get_model_object("model_sampling")
        return sampling.sigmas.clone() if sampling.sigmas.is_inference() else sampling.sigmas

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise IceError(
                f"the picture is {width} x {height}; this model needs sides that are multiples of "
                f"{self.multiple}: resize or crop it"
            )
        latents = self._vae.encode(images.movedim(1, -1).float().cpu())
        return self._model.model.process_latent_in(latents).to(self.device)

    @torch.no_grad()
    def decode_latent(self, latents: Tensor) -> Tensor:
        raw = self._model.model.process_latent_out(latents.float())
        pictures = self._vae.decode(raw.to(self._vae.output_device))
        return pictures.movedim(-1, 1).clamp(0, 1).to(self.device)

    def word_rows(self, text: str) -> dict[str, Tensor]:
        return {ENCODER: self._text.rows(text).to(self.device)}

    def encode_prompts(self, prompts: Sequence[Prompt]) -> TextFeatures:
        return self._text.encode(prompts, self.device)

    @cached_property
    def lora_targets(self) -> Mapping[str, LoraTarget]:
        return {
            name: LoraTarget(name, layer.in_features, layer.out_features)
            for name, layer in self._projections.items()
        }

    @cached_property
    def _projections(self) -> dict[str, nn.Linear]:
        """Attention projections of the U-Net by their names in LoRA files."""
        names = comfy.utils.unet_to_diffusers(self._model.model.model_config.unet_config)
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
        recorder: AttentionRecorder | None = None,
        lora: Lora | None = None,
    ) -> Tensor:
        _load(self._model, self._model.memory_required([2 * len(noisy), *noisy.shape[1:]]))
        self._differentiable = self._differentiable or _make_differentiable(self._model)
        noisy = noisy.to(self.device).float()
        context = text.context.to(self.device)
        if len(context) == 1:
            context = context.expand(len(noisy), -1, -1)
        sigma = self._sigmas.to(self.device)[timesteps.to(self.device)].float()
        wide = sigma.view(-1, 1, 1, 1)
        # The host's x at noise level sigma is x_0 + sigma * noise; it answers with x_0.
        scaled = noisy * (1 + wide**2).sqrt()
        options = self._model.model_options["transformer_options"]
        if recorder is not None:
            options = self._recording(options, recorder)
        if lora is not None:
            lora = lora.to(self.device)
            lora.check(self.lora_targets, self.name)
        with applied(self._projections, lora):
            original = self._model.model.apply_model(
                scaled, sigma, c_crossattn=context, transformer_options=options.copy()
            )
        noise = (scaled - original) / wide
        if self.prediction == "epsilon":
            return noise
        return (noise - wide * original) / (1 + wide**2).sqrt()

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


def check_model(model: Any) -> None:
    """Raise IceError unless the host's MODEL is a Stable Diffusion 1 U-Net."""
    inner = model.model
    what = type(inner.model_config).__name__
    unet = getattr(inner, "diffusion_model", None)
    if not isinstance(unet, UNetModel) or inner.adm_channels:
        raise IceError(f"the model is of the family {what}; {_ONLY}")
    if inner.model_type not in _PREDICTIONS:
        raise IceError(f"the model predicts {inner.model_type.name}, not noise or velocity; {_ONLY}")
    channels = inner.model_config.unet_config["in_channels"]
    if channels != inner.latent_format.latent_channels:
        raise IceError(f"the model takes {channels} channels: it is made for inpainting or editing; {_ONLY}")


def _check_clip(clip: Any) -> None:
    keys = sorted(clip.tokenize(""))
    if keys != [_KEY]:
        raise IceError(f"the CLIP holds the text encoders {', '.join(keys)}; {_ONLY}")


def check_tokens(clip: Any, learned: LearnedConcepts | Token) -> None:
    """Raise IceError where tokens were learned for text encoders that this CLIP does not have."""
    _check_clip(clip)
    width = _TextEncoder(clip).width
    tokens = [learned] if isinstance(learned, Token) else learned.tokens.values()
    for token in tokens:
        widths = {encoder: rows.shape[-1] for encoder, rows in token.rows.items()}
        if widths != {ENCODER: width}:
            made = "" if isinstance(learned, Token) else f" ({learned.architecture}, {learned.base_name})"
            raise IceError(
                f"the token {token.name} was learned for {widths}{made}; the connected CLIP takes "
                f"{ {ENCODER: width} }: use it with the model it was learned for"
            )


def encode_conditioning(clip: Any, prompt: Prompt) -> Any:
    """The host's CONDITIONING of a prompt, as CLIP Text Encode makes it: weights such as (red:1.2) and
    `embedding:` names in the text work, prompts over 75 tokens go on in further sections."""
    return clip.encode_from_tokens_scheduled({_KEY: _TextEncoder(clip).sections(prompt)})


class _TextEncoder:
    """The host's CLIP for prompts that hold learned tokens."""

    def __init__(self, clip: Any) -> None:
        self.clip = clip.clone()
        self._pieces: dict[str, tuple[int, ...]] = {}
        self._differentiable = False

    @property
    def _module(self) -> Any:
        return self.clip.cond_stage_model.clip_l

    @property
    def width(self) -> int:
        return int(self._module.transformer.get_input_embeddings().weight.shape[1])

    def rows(self, text: str) -> Tensor:
        """Embedding rows [n, D] of a text's pieces."""
        _load(self.clip.patcher)
        table = self._module.transformer.get_input_embeddings()
        with torch.no_grad():
            ids = torch.tensor(self.pieces(text), device=table.weight.device)
            return table(ids, out_dtype=torch.float32).clone()

    def pieces(self, text: str) -> tuple[int, ...]:
        """Ids of a plain text, without start, end and padding; parentheses are no weights."""
        if text not in self._pieces:
            escaped = text.replace("(", "\\(").replace(")", "\\)")
            self._pieces[text] = tuple(entry[0] for entry in self._content(escaped))
        return self._pieces[text]

    def _content(self, text: str) -> list[tuple[Any, float]]:
        """What the host's tokenizer makes of a text, sections joined, without start, end and padding."""
        sections = self.clip.tokenize(text, return_word_ids=True)[_KEY]
        return [(token, weight) for section in sections for token, weight, word in section if word]

    @property
    def _special(self) -> tuple[int, int, int]:
        special = self._module.special_tokens
        return special["start"], special["end"], special["pad"]

    @property
    def room(self) -> int:
        return int(self._module.max_length) - 2

    def _pad(self, entries: Sequence[tuple[Any, float]]) -> list[tuple[Any, float]]:
        start, end, pad = self._special
        filling = [(pad, 1.0)] * (self.room - len(entries))
        return [(start, 1.0), *entries, (end, 1.0), *filling]

    def encode(self, prompts: Sequence[Prompt], device: torch.device) -> TextFeatures:
        """All prompts in one pass, each as a section of its own."""
        laid_out = [self._lay_out(prompt) for prompt in prompts]
        self._differentiable = self._differentiable or _make_differentiable(self.clip.patcher)
        with _differentiable_encoder(self._module.transformer):
            tokens = {_KEY: [self._pad(entries) for entries, _ in laid_out]}
            joined = self.clip.encode_from_tokens(tokens)
        hidden = joined.reshape(len(prompts), self.room + 2, -1).to(device)
        columns = tuple(columns for _, columns in laid_out)
        ends = torch.tensor([1 + sum(map(len, spans)) for spans in columns], device=device)
        return TextFeatures(hidden, hidden[torch.arange(len(ends), device=device), ends], columns)

    def _lay_out(self, prompt: Prompt) -> tuple[list[tuple[Any, float]], tuple[tuple[int, ...], ...]]:
        entries: list[tuple[Any, float]] = []
        columns = []
        for part in prompt.parts:
            new = list(self._rows_of(part)) if isinstance(part, Token) else list(self.pieces(part))
            columns.append(tuple(range(len(entries) + 1, len(entries) + 1 + len(new))))
            entries += [(value, 1.0) for value in new]
        if len(entries) > self.room:
            raise IceError(
                f"the prompt {prompt.text[:60]!r} has {len(entries)} tokens, this model takes {self.room}: "
                "shorten it"
            )
        return entries, tuple(columns)

    def _rows_of(self, token: Token) -> Tensor:
        shapes = {encoder: tuple(rows.shape) for encoder, rows in token.rows.items()}
        shape = shapes.get(ENCODER, ())
        if len(shape) != 2 or shape[1] != self.width:
            raise IceError(
                f"the token {token.name!r} has rows {shapes}, this model needs {ENCODER} of width "
                f"{self.width}: the token was made for another base model"
            )
        rows = token.rows[ENCODER]
        return rows.clone() if rows.is_inference() and not torch.is_inference_mode_enabled() else rows

    def sections(self, prompt: Prompt) -> list[list[tuple[Any, float]]]:
        """A prompt with weights and any length as the host's token sections."""
        mark = [entry[0] for entry in self._content(_MARK)]
        marked = " ".join(part if isinstance(part, str) else _MARK for part in prompt.parts)
        waiting = [part for part in prompt.parts if isinstance(part, Token)]
        groups: list[list[tuple[Any, float]]] = []
        found = self._content(marked)
        at = 0
        while at < len(found):
            if [value for value, _ in found[at : at + len(mark)] if isinstance(value, int)] == mark:
                groups.append([(row, found[at][1]) for row in self._rows_of(waiting.pop(0))])
                at += len(mark)
            else:
                groups.append([found[at]])
                at += 1
        sections: list[list[tuple[Any, float]]] = [[]]
        for group in groups:
            if len(sections[-1]) + len(group) > self.room:
                sections.append([])
            sections[-1] += group
        return [self._pad(section) for section in sections]


@contextmanager
def _differentiable_encoder(transformer: nn.Module) -> Iterator[None]:
    """The host's CLIP adds in place to what its layer norms keep for the backward pass: give them copies."""
    if not torch.is_grad_enabled():
        yield
        return

    def copy(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0].clone(), *args[1:])

    with ExitStack() as stack:
        for name, module in transformer.named_modules():
            if name.endswith(("layer_norm1", "layer_norm2")):
                stack.callback(module.register_forward_pre_hook(copy).remove)
        yield


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
        return optimized_attention(query, key, value, heads, attn_precision=options["attn_precision"])

    return attend


def _transformer_blocks(unet: UNetModel) -> Iterator[tuple[str, int, int]]:
    """(block, number, transformer) of every attention block, as attention replacements are addressed."""
    groups = (("input", unet.input_blocks), ("middle", [unet.middle_block]), ("output", unet.output_blocks))
    for name, blocks in groups:
        for number, block in enumerate(blocks):
            for layer in block or ():
                if isinstance(layer, SpatialTransformer):
                    yield from ((name, number, i) for i in range(len(layer.transformer_blocks)))


def _load(patcher: Any, memory: float = 0) -> None:
    comfy.model_management.load_models_gpu([patcher], memory_required=memory)


def _make_differentiable(patcher: Any) -> bool:
    """Where gradients are wanted, replace weights made in inference mode by equal ones that autograd may
    keep. Whether it was done.

    The values stay the same bits. Weights that the host pages in by itself are copied at use anyway.
    """
    if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
        return False
    if getattr(patcher, "is_dynamic", lambda: False)():
        return True
    for module in patcher.model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if weight.is_inference():
                module.register_parameter(name, nn.Parameter(weight.detach().clone(), requires_grad=False))
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_inference():
                module._buffers[name] = buffer.clone()
    return True


def _samples(weight: Tensor, count: int = 64) -> bytes:
    """Bytes of up to `count` evenly spread numbers of a weight, and of their whole sum."""
    flat = weight.detach().reshape(-1)
    picked = flat[:: max(1, len(flat) // count)].float().cpu()
    return picked.numpy().tobytes()


def _tensors_of(patch: Any) -> Iterator[Tensor]:
    if isinstance(patch, Tensor):
        yield patch
    elif isinstance(patch, (tuple, list)):
        for part in patch:
            yield from _tensors_of(part)
    elif hasattr(patch, "weights"):
        yield from _tensors_of(patch.weights)
