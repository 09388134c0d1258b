"""Which open_clip models the retriever can look with: those that lie on the disk, and downloads."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ice_core.errors import IceError
from ice_core.run.defaults import CLIPS
from ice_core.tensor_files.safetensors_file import read_header

OWN = "open_clip"
"""The folder below the host's models that is for these alone."""
DOWNLOADS = {
    CLIPS["clip_l"]: "1.7 GB",
    "ViT-B-32-quickgelu/openai": "0.6 GB",
    CLIPS["clip_h"]: "3.9 GB",
    CLIPS["clip_g"]: "10.2 GB",
}
"""NAME/WEIGHTS -> what open_clip fetches, once."""
_FOLDERS = ("clip_vision", "text_encoders", OWN)
_KINDS = {
    (512, 768, 32, 50): "ViT-B-32",
    (512, 768, 16, 197): "ViT-B-16",
    (768, 1024, 14, 257): "ViT-L-14",
    (768, 1024, 14, 577): "ViT-L-14-336",
    (1024, 1280, 14, 257): "ViT-H-14",
    (1024, 1408, 14, 257): "ViT-g-14",
    (1280, 1664, 14, 257): "ViT-bigG-14",
}
"""Widths of the common space and of the image tower, side of a patch, places of a picture -> the model."""


def kind_of(path: Path) -> str | None:
    """open_clip's name of the model whose weights, picture's and text's, a file holds; None for others.

    Activations cannot be told from weights: OpenAI's own are known by the file's name.
    """
    try:
        shapes = read_header(path)[1]
    except IceError:
        return None
    patch, places, text = (
        shapes.get(name, ())
        for name in ("visual.conv1.weight", "visual.positional_embedding", "text_projection")
    )
    if len(patch) != 4 or len(places) != 2 or len(text) != 2 or "token_embedding.weight" not in shapes:
        return None
    kind = _KINDS.get((text[1], patch[0], patch[2], places[0]))
    quick = any(mark in path.name.lower() for mark in ("openai", "quickgelu"))
    return f"{kind}-quickgelu" if kind and quick else kind


@lru_cache(maxsize=256)
def _kind(path: Path, changed: int, size: int) -> str | None:
    return kind_of(path)


def on_disk() -> dict[str, Path]:
    """What lies in the host's folders for CLIPs and in our own: "ViT-H-14=clip_vision/laion.safetensors"."""
    import folder_paths

    if OWN not in folder_paths.folder_names_and_paths:
        folder_paths.add_model_folder_path(OWN, str(Path(folder_paths.models_dir, OWN)))
    found: dict[str, Path] = {}
    for folder in _FOLDERS:
        for name in folder_paths.get_filename_list(folder):
            file = folder_paths.get_full_path(folder, name)
            if file is None or not name.lower().endswith(".safetensors"):
                continue
            path = Path(file)
            state = path.stat()
            if kind := _kind(path, state.st_mtime_ns, state.st_size):
                found[f"{kind}={folder}/{name}"] = path
    return found


def choices() -> list[str]:
    """For the node's list: the usual download first, then what needs none."""
    first, *others = DOWNLOADS
    return [first, *on_disk(), *others]


def as_named(choice: str) -> str:
    """A choice, or a text of one's own, as `open_towers` takes it: NAME/WEIGHTS or NAME=FILE."""
    path = on_disk().get(choice)
    return choice if path is None else f"{choice.partition('=')[0]}={path}"
