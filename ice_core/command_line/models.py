"""The models that commands work with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ice_core.model.backbone import Backbone


def open_backbone(
    checkpoint: Path | None,
    device: str,
    dtype: str | None = None,
    gradient_checkpointing: bool = False,
) -> Backbone:
    """The model of a checkpoint, or the bundled one, for as long as the command runs. Raises IceError for a
    file or device that cannot be used."""
    from ice_core.api import load_model
    from ice_core.standalone.memory import keep_freed_memory

    backbone = load_model(checkpoint, device, dtype or "auto", gradient_checkpointing)
    if backbone.device.type == "cpu":
        keep_freed_memory()
    return backbone
