"""The version of this package, installed or run from a checkout inside a host."""

from __future__ import annotations

import re
from functools import cache
from importlib import metadata
from pathlib import Path


@cache
def package_version() -> str:
    """For example "0.1.0"; a checkout's own pyproject.toml wins over an installed copy."""
    project = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if project.is_file():
        text = project.read_text(encoding="utf-8")
        found = re.search(r'^version\s*=\s*"([^"]+)"', text, re.MULTILINE)
        if found and re.search(r'^name\s*=\s*"comfyui-ice"', text, re.MULTILINE):
            return found.group(1)
    try:
        return metadata.version("comfyui-ice")
    except metadata.PackageNotFoundError:
        return "unknown"
