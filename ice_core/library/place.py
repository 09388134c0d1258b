"""Where a person's library lies when nobody says otherwise. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "ICE_LIBRARY"
"""Of the environment: the folder of the library, for the command line and for ComfyUI."""
NAME = "ice-library"


def default_folder(below: Path | str = ".", environment: Mapping[str, str] = os.environ) -> Path:
    """What the environment names, else `ice-library` below a folder: the current one, ComfyUI's own there."""
    given = environment.get(VARIABLE, "").strip()
    return Path(given).expanduser() if given else Path(below) / NAME
