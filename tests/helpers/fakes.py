"""A tiny differentiable backbone for tests of the core: no downloads, no bundled weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.errors import IceError
from ice_core.model.attention import AttentionRecorder
from ice_core.model.backbone import Prompt, TextFeatures, Token, all_lora_targets
from ice_core.model.lora import TEXT, Lora, LoraTarget, kohya_name

WIDTH, CONTEXT = 16, 20
TEXT_LAYER = kohya_name("text_model.encoder.layers.0.self_attn.out_proj", TEXT[0])


def layer(kind: str) -> str:
    """Name of the fake's one attention's projection ("q", "k", "v", "out.0")."""
    return kohya_name(f"mid_block.attentions.0.transformer_blocks.0.attn2.to_{kind}")


def term(lora: Lora, kind: str, x: Tensor) -> Tensor:
    """What a LoRA adds to a projection of x; 0 for one that it leaves alone."""
    return added(lora, layer(kind), x)


def added(lora: Lora, name: str, x: Tensor) -> Tensor:
    if name not in lora.down:
        return torch.zeros(())
    return lora.scale(name) * x @ lora.down[name].T @ lora.up[name].T


class FakeBackbone:
    """Words are random rows, text features a causal mean, the denoiser one block of real attention.

    The latent is an 8 x 8 average of the picture (three colours and their mean, in -1..1), so that
    self-attention over it finds regions of one colour.
    """

    name = "fake"
    fingerprint = "f" * 64
    architecture = "stable-diffusion-v1"
    factor = 8
    multiple = 8
    channels = 4
    native_size = 64
    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    device = torch.device("cpu")
    saves_memory = False

    def __init__(self, seed: int = 0) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.weights = {
            name: torch.randn(shape, generator=rng) / shape[-1] ** 0.5
            for name, shape in {
                "query": (WIDTH, 4),
                "key": (WIDTH, WIDTH),
                "value": (4, WIDTH),
                "text": (WIDTH, WIDTH),
            }.items()
        }
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.alphas_cumprod = (1 - betas).cumprod(0).float()

    @property
    def encoders(self) -> Mapping[str, int]:
        return {"clip_l": WIDTH}

    @property
    def lora_targets(self) -> Mapping[str, LoraTarget]:
        widths = {"q": (4, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH), "out.0": (WIDTH, 4)}
        return {layer(kind): LoraTarget(layer(kind), *width) for kind, width in widths.items()}

    @property
    def text_lora_targets(self) -> Mapping[str, LoraTarget]:
        return {TEXT_LAYER: LoraTarget(TEXT_LAYER, WIDTH, WIDTH)}

    def encode_image(self, images: Tensor) -> Tensor:
        x = F.avg_pool2d(images, self.factor) * 2 - 1
        return torch.cat([x, x.mean(1, keepdim=True)], 1)

    def decode_latent(self, latents: Tensor) -> Tensor:
        x = (latents[:, :3] / 2 + 0.5).clamp(0, 1)
        return F.interpolate(x, scale_factor=self.factor, mode="nearest")

    def word_rows(self, text: str) -> dict[str, Tensor]:
        rows = []
        for word in text.split():
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
            rows.append(torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)))
        return {"clip_l": torch.stack(rows)}

    def encode_prompts(
        self, prompts: Sequence[Prompt], contexts: int | None = None, lora: Lora | None = None
    ) -> TextFeatures:
        hidden, pooled, columns = [], [], []
        for prompt in prompts:
            rows, spans, at = [torch.ones(1, WIDTH)], [], 1
            for part in prompt.parts:
                new = part.rows["clip_l"] if isinstance(part, Token) else self.word_rows(part)["clip_l"]
                rows.append(new)
                spans.append(tuple(range(at, at + len(new))))
                at += len(new)
            if at >= CONTEXT:
                raise IceError(f"the prompt has {at - 1} tokens, more than {CONTEXT - 2}: shorten it")
            x = torch.cat([*rows, -torch.ones(1, WIDTH)])
            seen = x.cumsum(0) / torch.arange(1, len(x) + 1)[:, None]
            x = x + seen
            adapted = added(lora, TEXT_LAYER, x) if lora is not None else 0
            x = torch.tanh(x @ self.weights["text"] + adapted)
            hidden.append(F.pad(x, (0, 0, 0, CONTEXT - len(x))))
            pooled.append(x[-1])
            columns.append(tuple(spans))
        return TextFeatures(torch.stack(hidden)[:contexts], torch.stack(pooled), tuple(columns))

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: TextFeatures,
        recorder: AttentionRecorder | None = None,
        lora: Lora | None = None,
    ) -> Tensor:
        batch, _, height, width = noisy.shape
        x = noisy.flatten(2).transpose(1, 2)
        query, key, value = x @ self.weights["query"].T, text.context @ self.weights["key"], text.context
        if lora is not None:
            lora.check(all_lora_targets(self), self.name)
            query, key, value = (
                query + term(lora, "q", x),
                key + term(lora, "k", value),
                value + term(lora, "v", value),
            )
        query, key, value = query[:, None], key[:, None], value[:, None]
        size, scale = (height, width), WIDTH**-0.5
        if recorder is not None and recorder.wants("self", size):
            recorder.record("self", size, query * 4, query * 4, scale)
        if recorder is not None and recorder.wants("cross", size):
            recorder.record("cross", size, query, key, scale)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=scale)[:, 0]
        out = x + mixed @ self.weights["value"].T
        if lora is not None:
            out = out + term(lora, "out.0", mixed)
        out = out * (1 + timesteps.view(-1, 1, 1) / 1000)
        return out.transpose(1, 2).reshape(batch, 4, height, width)
