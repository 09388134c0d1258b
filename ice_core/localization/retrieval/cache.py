"""Embeddings that were computed before, in files that may be damaged, old or somebody else's."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def default_cache_folder() -> Path:
    """`comfyui-ice` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "comfyui-ice"


def read_embeddings(path: Path, key: str, count: int) -> Tensor | None:
    """Embeddings [count, D] that were written under `key`; None where the file is absent, damaged, changed or
    of another key."""
    try:
        with safe_open(path, "pt") as file:
            raw = file.get_tensor("raw")
            header = file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    mine = header.get("key") == key and raw.dtype == torch.float32 and raw.ndim == 2 and len(raw) == count
    return raw if mine and header.get("sha256") == _hash(raw) else None


def write_embeddings(path: Path, key: str, raw: Tensor) -> None:
    """Write beside the target and rename, so that no reader ever sees half a file; where that cannot be
    done nothing is kept."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(suffix=".part", dir=path.parent)
        os.close(handle)
    except OSError:
        return
    raw = raw.contiguous()
    try:
        save_file({"raw": raw}, part, metadata={"key": key, "sha256": _hash(raw)})
        os.replace(part, path)
    except (OSError, SafetensorError):
        Path(part).unlink(missing_ok=True)


def _hash(raw: Tensor) -> str:
    """SHA-256 of the numbers: a changed one would name objects wrongly, unseen."""
    return hashlib.sha256(raw.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
