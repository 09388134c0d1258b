"""The host's weights: loaded, fit for gradients, and told apart. Their values never change."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.model_management
import torch
from torch import Tensor, nn

_UNUSED = "clip_l.transformer.text_projection.weight"
"""No checkpoint holds it and nothing reads it: the host leaves in it what lay in memory."""


@contextmanager
def gradients() -> Iterator[None]:
    """Leaves the executor's inference mode, so that tokens can be learned."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def load(patcher: Any, memory: float = 0) -> None:
    """Have the host load a model; memory: bytes that one pass of it needs beside the weights."""
    comfy.model_management.load_models_gpu([patcher], memory_required=memory)


def make_differentiable(patcher: Any) -> bool:
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


def fingerprint(patchers: Sequence[Any]) -> str:
    """SHA-256 of samples of every weight, and of the patches (LoRAs) that are not yet part of them."""
    digest = hashlib.sha256()
    for patcher in patchers:
        for name, weight in sorted(patcher.model.state_dict().items()):
            if name.endswith(_UNUSED):
                continue
            digest.update(f"{name}{tuple(weight.shape)}".encode() + _samples(weight))
        for name, patches in sorted(patcher.patches.items(), key=lambda item: str(item[0])):
            for strength, patch, *_ in patches:
                digest.update(f"{name}{strength}".encode())
                for weight in _tensors_of(patch):
                    digest.update(_samples(weight))
    return digest.hexdigest()


def _samples(weight: Tensor, count: int = 64) -> bytes:
    """Bytes of about `count` evenly spread numbers of a weight."""
    flat = weight.detach().reshape(-1)
    return flat[:: max(1, len(flat) // count)].float().cpu().numpy().tobytes()


def _tensors_of(patch: Any) -> Iterator[Tensor]:
    if isinstance(patch, Tensor):
        yield patch
    elif isinstance(patch, (tuple, list)):
        for part in patch:
            yield from _tensors_of(part)
    elif hasattr(patch, "weights"):
        yield from _tensors_of(patch.weights)
