"""Which open_clip models the retriever offers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from ice_core.run.defaults import CLIPS
from nodes import clip_weights


def weights(name: str) -> dict[str, torch.Tensor]:
    """One number for all, in the shapes of a model."""
    with torch.device("meta"):
        state = open_clip.CLIP(**open_clip.get_model_config(name)).state_dict()
    kept = ("visual.conv1.weight", "visual.positional_embedding", "text_projection")
    shapes = {key: value.shape for key, value in state.items()}
    return {key: torch.zeros(shapes[key], dtype=torch.uint8) for key in kept} | {
        "token_embedding.weight": torch.zeros(1)
    }


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host's folder of models, and its lists of them."""
    known: dict[str, list[str]] = {name: [str(tmp_path / name)] for name in ("clip_vision", "text_encoders")}

    def names(folder: str) -> list[str]:
        (root,) = known[folder]
        return [os.path.relpath(path, root) for path in sorted(Path(root).rglob("*.*"))]

    host = SimpleNamespace(
        folder_names_and_paths=known,
        models_dir=str(tmp_path),
        add_model_folder_path=lambda name, path: known.update({name: [path]}),
        get_filename_list=names,
        get_full_path=lambda folder, name: os.path.join(known[folder][0], name),
    )
    monkeypatch.setitem(sys.modules, "folder_paths", host)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-bigG-14"]
)
def test_a_file_is_known_by_its_shapes(tmp_path: Path, name: str) -> None:
    file = tmp_path / "some.safetensors"
    save_file(weights(name), file)
    assert clip_weights.kind_of(file) == name
    quick = tmp_path / "clip-openai.safetensors"
    save_file(weights(name), quick)
    assert clip_weights.kind_of(quick) == f"{name}-quickgelu"


def test_files_of_the_host_s_folders_and_of_our_own_are_offered_beside_downloads(models: Path) -> None:
    for folder in ("clip_vision/laion", "text_encoders", "open_clip"):
        (models / folder).mkdir(parents=True)
    save_file(weights("ViT-H-14"), models / "clip_vision" / "laion" / "h.safetensors")
    save_file({"a": torch.zeros(1)}, models / "text_encoders" / "t5.safetensors")
    (models / "text_encoders" / "damaged.safetensors").write_bytes(b"none")
    (models / "text_encoders" / "notes.txt").write_text("none")
    save_file(weights("ViT-L-14"), models / "open_clip" / "l.safetensors")
    choices = clip_weights.choices()
    assert choices[0] == CLIPS["clip_l"]
    assert choices[1:3] == ["ViT-H-14=clip_vision/laion/h.safetensors", "ViT-L-14=open_clip/l.safetensors"]
    assert set(choices[3:]) == set(clip_weights.DOWNLOADS) - {choices[0]}
    path = models / "open_clip" / "l.safetensors"
    assert clip_weights.as_named("ViT-L-14=open_clip/l.safetensors") == f"ViT-L-14={path}"


def test_what_an_earlier_version_took_as_text_is_passed_on(models: Path) -> None:
    for text in ("ViT-B-32/laion2b_s34b_b79k", "ViT-L-14=/there/clip.safetensors"):
        assert clip_weights.as_named(text) == text


def test_the_sizes_that_are_told_are_those_of_the_weights() -> None:
    from ice_core.localization.retrieval.towers import _size

    for name, told in clip_weights.DOWNLOADS.items():
        assert told == f"{_size(name.partition('/')[0]) / 1e9:.1f} GB"
