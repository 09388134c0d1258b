"""LoRAs in kohya's layout: ComfyUI, AUTOMATIC1111/Forge and diffusers read them.

Per layer three tensors, `<name>.lora_down.weight` [rank, inputs], `<name>.lora_up.weight` [outputs, rank]
and `<name>.alpha` (a scalar). The header carries the Stability AI model spec and, under `ice.`, what made
the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ice_core.composition import described
from ice_core.concepts import LearnedConcepts
from ice_core.errors import IceError
from ice_core.files.paths import atomic_write, free_path
from ice_core.model.backbone import Prompt
from ice_core.model.lora import TEXT, UNET, Lora
from ice_core.tensor_files.safetensors_file import read_header, read_tensors, tensor_bytes
from ice_core.version import package_version

_DOWN, _UP, _ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"


def lora_state_dict(lora: Lora) -> dict[str, Tensor]:
    """The tensors of a file, float32 on the CPU; also what ComfyUI's LORA_MODEL wires carry."""
    lora = lora.detach()
    state = {}
    for name in sorted(lora.down):
        state[name + _DOWN] = lora.down[name].contiguous()
        state[name + _UP] = lora.up[name].contiguous()
        state[name + _ALPHA] = torch.tensor(lora.alpha)
    return state


def lora_from_state_dict(state: Mapping[str, Tensor], where: str = "the LoRA") -> Lora:
    """The inverse of `lora_state_dict`, also for files of others that adapt linear layers only.

    A layer whose alpha differs from the first one's takes the difference into its `up`; without an alpha
    the scale is 1. Raises IceError for anything that is not down, up or alpha of a linear layer of a U-Net or
    of a text encoder.
    """
    down: dict[str, Tensor] = {}
    up: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    for key, value in state.items():
        name, _, kind = key.partition(".")
        of = name.split("_", 2)[:2]
        if "_".join(of) not in (UNET, *TEXT) or "." + kind not in (_DOWN, _UP, _ALPHA):
            raise IceError(
                f"{where} holds {key!r}; only LoRAs of the U-Net and the text encoders in kohya's layout can "
                "be used, such as those that this package saves"
            )
        if "." + kind == _ALPHA:
            if value.numel() != 1:
                raise IceError(f"{where} holds {key!r} of shape {tuple(value.shape)}; it must be one number")
            if value.is_complex() or not math.isfinite(alpha := float(value)):
                raise IceError(f"{where} holds {key!r} of {value.item()}; train or download it again")
            alphas[name] = alpha
        else:
            if value.ndim != 2 or value.is_complex():
                raise IceError(f"{where} holds {key!r} of shape {tuple(value.shape)}; it must be a matrix")
            (down if "." + kind == _DOWN else up)[name] = value.detach().float().cpu()
    alphas = {name: alphas.get(name, float(len(value))) for name, value in down.items()}
    first = next((value for value in alphas.values() if value), 1.0)
    for name in down.keys() & up.keys():
        if alphas[name] != first:
            up[name] = up[name] * (alphas[name] / first)
    if not all(bool(v.isfinite().all()) for v in (*down.values(), *up.values())):
        raise IceError(f"{where} holds values that are not numbers; train or download it again")
    return Lora(down, up, first)


def save_lora(
    lora: Lora | Mapping[str, Tensor],
    path: Path,
    learned: LearnedConcepts,
    date: str = "",
    title: str = "",
    description: str = "",
    thumbnail: str | None = None,
    extra: Mapping[str, str] | None = None,
    replace: bool = False,
) -> Path:
    """Write a LoRA, or its state dict, that was learned for these concepts -> the file's path.

    date: ISO 8601; thumbnail: a data URI; extra: further header entries. Unless `replace` is set nothing is
    overwritten: the name is counted up.
    """
    state = lora_state_dict(lora) if isinstance(lora, Lora) else lora
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    path = Path(path) if replace else free_path(path)
    labels = list(dict.fromkeys(concept.label for concept in learned.concepts))
    triggers = [Prompt(described(concept)).text for concept in learned.concepts]
    header = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{learned.architecture}/lora",
        "modelspec.title": title or path.stem,
        "modelspec.description": description or _describe(labels),
        "modelspec.trigger_phrase": ", ".join(triggers),
        "ice.version": package_version(),
        "ice.base_name": learned.base_name,
        "ice.base_fingerprint": learned.base_fingerprint,
        "ice.keys": json.dumps([concept.key for concept in learned.concepts]),
        "ice.labels": json.dumps(labels),
        "ice.axes": json.dumps(list(learned.axes)),
        "ice.seed": str(learned.seed),
        "ice.steps": str(learned.steps),
        **(extra or {}),
    }
    optional = {"date": date, "thumbnail": thumbnail}
    header |= {f"modelspec.{key}": value for key, value in optional.items() if value}
    return atomic_write(path, tensor_bytes(tensors, header))


def _describe(labels: Sequence[str]) -> str:
    what = f"{', '.join(labels)}, learned from a single picture"
    return f"Refines the model for the embeddings of {what}; use it together with them."


def load_lora(path: Path) -> Lora:
    """Read a LoRA of linear layers in kohya's layout, float32 on the CPU.

    Raises IceError for a file that is missing, damaged, or holds something else. Whether it fits a model
    is for `Lora.check` to say.
    """
    if not Path(path).is_file():
        raise IceError(f"there is no LoRA file {path}")
    return lora_from_state_dict(read_tensors(path).tensors, str(path))


def lora_header(path: Path) -> dict[str, str]:
    """What a LoRA's file says about itself; empty for one without a header. Raises IceError."""
    return read_header(path)[0]
