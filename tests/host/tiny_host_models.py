"""Runs inside a host's Python: the models of `tiny_families`, loaded by the host itself from their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd
import comfy.utils
from comfy import model_detection, supported_models

CLASSES = {"sd1": supported_models.SD15, "sd2": supported_models.SD20, "sdxl": supported_models.SDXL}
WIDTHS = {"clip_l": 64, "clip_h": 64, "clip_g": 128}


def load(path: Path, embeddings: Path) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE as Load Checkpoint makes them; the host is told that models are this small.

    path: `<family>.safetensors`; embeddings: folder of the files that prompts name.
    """
    base = CLASSES[path.stem.partition("-")[0]]
    found = model_detection.detect_unet_config(
        comfy.utils.load_torch_file(str(path)), "model.diffusion_model."
    )
    small = type(
        "Small",
        (base,),
        {"unet_config": {key: found.get(key) for key in base.unet_config}, "ice_native_size": 64},
    )
    options = {
        f"{name}_model_config": {
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_attention_heads": width // 64,
            "num_hidden_layers": 3,
        }
        for name, width in WIDTHS.items()
    }
    supported_models.models.insert(0, small)
    try:
        return comfy.sd.load_checkpoint_guess_config(
            str(path), embedding_directory=str(embeddings), te_model_options=options
        )[:3]
    finally:
        supported_models.models.remove(small)
