"""A custom node of the tests: Load Checkpoint for the small models of `tiny_families`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import folder_paths

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tiny_host_models import load


class LoadTinyCheckpoint:
    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    FUNCTION = "load"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"ckpt_name": ("STRING", {})}}

    def load(self, ckpt_name: str) -> tuple[Any, Any, Any]:
        (embeddings, *_) = folder_paths.get_folder_paths("embeddings")
        return load(Path(folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)), Path(embeddings))


NODE_CLASS_MAPPINGS = {"LoadTinyCheckpoint": LoadTinyCheckpoint}
