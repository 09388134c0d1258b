"""Training states as files: plain values and tensors in the safetensors format, checked when read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ice_core.errors import IceError
from ice_core.tensor_files.safetensors_file import read_tensors, tensor_bytes
from ice_core.training.plain import checked

State = TypeVar("State")

_RNG_BYTES = len(torch.Generator().get_state())


def state_bytes(kind: str, plain: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """The content of a state's file; kind: "training"."""
    header = {"format": _format(kind), "state": json.dumps(plain, ensure_ascii=False)}
    return tensor_bytes(tensors, header)


def read_state(
    path: Path | str, kind: str, make: Callable[[dict[str, Any], Mapping[str, Tensor]], State]
) -> State:
    """What `make` builds of the values and tensors of `state_bytes`.

    Raises IceError when the file is missing, damaged or something else; `make` may raise KeyError,
    TypeError and ValueError for damage.
    """
    try:
        file = read_tensors(Path(path), "start again")
    except IceError as error:
        raise IceError(f"cannot read the {kind} state {path}: {error}") from error
    if file.header.get("format") != _format(kind):
        raise IceError(f"{path} is no {kind} state of this version: choose a file that {kind} saved")
    try:
        return checked(make(file.entry("state", dict, {}), file.tensors))
    except IceError as error:
        raise IceError(f"the {kind} state {path} cannot be used: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IceError(f"the {kind} state {path} is damaged ({error}): start again") from error


def below(tensors: Mapping[str, Tensor], folder: str) -> dict[str, Tensor]:
    """The tensors named `<folder>/...`, by the rest of their names."""
    start = f"{folder}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def check_progress(step: int, steps: int, generator: Tensor) -> None:
    """Raise ValueError for a step that cannot be, and for what is no random generator's state."""
    if not 0 <= step <= steps:
        raise ValueError(f"step {step} of {steps}")
    if generator.dtype != torch.uint8 or generator.shape != (_RNG_BYTES,):
        raise ValueError("the random generator's state has a wrong size")
    try:
        torch.Generator().set_state(generator)
    except RuntimeError as error:
        raise ValueError("the random generator's state is none") from error


def check_settings(kind: str, before: Any, now: Any, remedy: str) -> None:
    """Raise IceError where two configs differ in more than how often a snapshot is taken."""
    for field in dataclasses.fields(now):
        old, new = getattr(before, field.name), getattr(now, field.name)
        if field.name != "snapshot_every" and old != new:
            raise IceError(
                f"the {kind} state was made with {field.name} {old!r}, not {new!r}: "
                f"go on with the same settings, or {remedy}"
            )


def _format(kind: str) -> str:
    return f"ice-{kind}-1"
