"""Tensors out of pickles that others made, as far as that runs no code and asks for no more than is there."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ice_core.errors import IceError


def read_pickle(path: Path, remedy: str) -> Any:
    """What `torch.load(weights_only=True)` makes of a file. Raises IceError where it refuses.

    remedy: what the message ends with.
    """
    try:
        too_much = _unpacked(path) > path.stat().st_size
        content = None if too_much else torch.load(path, map_location="cpu", weights_only=True)
    # The reader raises whatever comes up in damaged data: UnpicklingError, TypeError, AssertionError, ...
    except Exception as error:
        raise IceError(
            f"cannot read {path} safely: it is damaged, or holds more than tensors; {remedy}"
        ) from error
    if too_much:
        raise IceError(f"cannot read {path}: it unpacks to more than its own size; {remedy}")
    return content


def _unpacked(path: Path) -> int:
    """Bytes that a zip file's parts take, 0 for any other file. torch stores them without compression."""
    if not zipfile.is_zipfile(path):
        return 0
    with zipfile.ZipFile(path) as file:
        return sum(part.file_size for part in file.infolist())


def plain_tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a mapping that hold what they take: none that repeats few numbers over a large shape,
    and none without values of its own."""
    return {
        name: value.detach()
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor) and _is_plain(value)
    }


def _is_plain(value: Tensor) -> bool:
    if value.device.type != "cpu" or value.layout != torch.strided or value.is_quantized:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()
