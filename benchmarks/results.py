"""How every benchmark writes its figures: one JSON file, with what produced them."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ice_core.files.paths import atomic_write

PACKAGES = ("comfyui-ice", "torch", "diffusers", "transformers", "open_clip_torch")


def _version(package: str) -> str | None:
    """None where a package runs from its folder without being installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_results(path: Path, figures: dict[str, Any], settings: dict[str, Any]) -> None:
    """Figures at the top level, beside `settings` and the `environment` they were measured in.

    They are printed first: what took hours is seen even where it cannot be written.
    """
    print(json.dumps(figures, indent=2))
    environment = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        **{name: _version(name) for name in PACKAGES},
    }
    everything = figures | {"settings": settings, "environment": environment}
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (json.dumps(everything, indent=2) + "\n").encode())
