"""Devices and precisions by the names that people type."""

from __future__ import annotations

import torch

from ice_core.errors import IceError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def usable_device(name: str | torch.device) -> torch.device:
    """ "cpu", "cuda", "mps", ..., or "auto" for the accelerator that is there -> a device that works.

    Raises IceError for one that does not.
    """
    if name == "auto":
        accelerators = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        name = next((kind for kind, there in accelerators.items() if there), "cpu")
    try:
        if float(torch.ones(2, device=name).sum()) != 2:
            raise RuntimeError("it does not add up")
    # Backends that are not there raise whatever comes up: ImportError, NotImplementedError, ...
    except Exception as error:
        raise IceError(f"the device {str(name)!r} cannot be used; try cpu") from error
    return torch.device(name)


def dtype_named(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """ "float32", "bfloat16", "float16", or "auto": bfloat16 where an accelerator has it, else float32.

    Raises IceError for another name.
    """
    if isinstance(name, torch.dtype):
        return name
    if name == "auto":
        return torch.bfloat16 if device.type != "cpu" and _has_bfloat16(device) else torch.float32
    if name not in _DTYPES:
        raise IceError(f"there is no precision {name!r} for a model; take auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        # Older cards answer by emulation, at a fraction of their speed.
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        ones = torch.ones(2, 2, device=device, dtype=torch.bfloat16)
        return float((ones @ ones).sum()) == 8
    except (RuntimeError, TypeError):
        return False
