"""Where learned concepts lie in the host's folders, and what they are called there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ice_core.concepts import LearnedConcepts
from ice_core.errors import IceError
from ice_core.files.paths import safe_path

if TYPE_CHECKING:
    from ice_core.files.concept_set import SavedConcepts

EMBEDDINGS, OUTPUT = "embeddings", "output"
_OWN = "ice"
"""The folder below the output folder that is searched for concepts: all of it may hold very much."""
_SET = "concepts.safetensors"
"""How the names of concept sets end that are listed, as `ice_core.files.concept_set.ENDING`, which is not
imported because the host asks for the list when it starts, without torch."""


@dataclass(frozen=True)
class LoadedConcepts(LearnedConcepts):
    """Learned concepts that lie in this subfolder of the embeddings folder ("" for the folder itself)."""

    folder: str = ""


@dataclass(frozen=True)
class PicturedConcepts(LearnedConcepts):
    """Learned concepts with their masks, thumbnails and picture, of a training or a concept set."""

    saved: SavedConcepts | None = None

    @classmethod
    def of(cls, saved: SavedConcepts) -> PicturedConcepts:
        return cls(**vars(saved.learned), saved=saved)


def concepts_below(root: Path) -> Iterator[Path]:
    """Folders below `root`, itself included, that hold saved concepts, and concept sets by their names.

    A folder has an object token with an instance token, as older versions left them, or with the file of the
    whole object. Links are followed, to each folder once: one that leads back up ends nowhere.
    """
    seen: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        names = set(files)
        ends = "_object.safetensors"
        keys = [name.removesuffix(ends) for name in names if name.endswith(ends)]
        if any(f"{key}{end}" in names for key in keys for end in ("_instance.safetensors", ".safetensors")):
            yield Path(folder)
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(_SET))


def listed(embeddings: Sequence[Path], output: Path) -> dict[str, Path]:
    """Every folder of saved concepts, and every concept set, by its name in lists: "embeddings/ice/vase"."""
    found: dict[str, Path] = {}
    for root in embeddings:
        for path in concepts_below(root):
            found.setdefault(_join(EMBEDDINGS, path.relative_to(root)), path)
    for path in concepts_below(output / _OWN):
        found.setdefault(_join(OUTPUT, path.relative_to(output)), path)
    return found


def _join(root: str, below: Path) -> str:
    return root if below == Path() else f"{root}/{below.as_posix()}"


def saved() -> dict[str, Path]:
    """`listed` of the host's own folders."""
    import folder_paths

    embeddings = [Path(folder) for folder in folder_paths.get_folder_paths("embeddings")]
    return listed(embeddings, Path(folder_paths.get_output_directory()))


def load(name: str) -> LearnedConcepts:
    """The concepts of a listed folder or file. Raises IceError when there is none of that name, or it is
    damaged."""
    from ice_core.files.concept_set import load_concept_set
    from ice_core.files.embeddings import load_concepts

    folders = saved()
    if name not in folders:
        there = ", ".join(folders) or "none; save some with ICE Save Concepts"
        raise IceError(f"there are no saved concepts in {name!r}; there are: {there}")
    if folders[name].is_file():
        return PicturedConcepts.of(load_concept_set(folders[name]))
    learned = load_concepts(folders[name])
    root, _, below = name.partition("/")
    return LoadedConcepts(**vars(learned), folder=below) if root == EMBEDDINGS else learned


def all_of(learned: LearnedConcepts) -> SavedConcepts:
    """Learned concepts with all that is known of them."""
    from ice_core.files.concept_set import SavedConcepts

    known = learned.saved if isinstance(learned, PicturedConcepts) else None
    return known or SavedConcepts(learned)


def names_in(folder: str) -> tuple[str, ...]:
    """What a prompt may name of a listed folder. Raises IceError as `load` does."""
    from ice_core.composition import placeholders

    return tuple(placeholders(*load(folder).concepts))


def thumbnail(folder: str, name: str) -> bytes | None:
    """The picture of an object or a token of a listed folder, as a whole file; None where there is none."""
    from ice_core.files.concept_set import load_concept_set
    from ice_core.files.embeddings import file_name, whole_name
    from ice_core.files.images import uri_bytes
    from ice_core.tensor_files.safetensors_file import read_header

    try:
        path = saved().get(folder)
        if path is not None and path.is_file():
            return load_concept_set(path).thumbnails.get(name)
        if path is None or name not in names_in(folder):
            return None
        key, _, role = name.rpartition(".")
        file = path / (file_name(key, role) if key else whole_name(name))
        uri = read_header(file)[0].get("modelspec.thumbnail", "") if file.is_file() else ""
        return uri_bytes(uri) if uri else None
    except IceError:
        return None


def unused(folder: str, root: Path, lora_root: Path) -> str:
    """The folder's name below `root`, or the first of "name-2", "name-3", ... that no save has taken.

    A save is the folder with its embeddings, and below `lora_root` the LoRA of the same name: pictures saved
    one after the other are never mixed, and a LoRA is counted as its embeddings are. Raises IceError for a
    name that cannot be.
    """
    name, n = folder, 1
    while _holds_files(safe_path(root, name)) or safe_path(lora_root, f"{name}.safetensors").exists():
        n += 1
        name = f"{folder}-{n}"
    return name


def _holds_files(folder: Path) -> bool:
    return folder.is_file() or (folder.is_dir() and any(path.is_file() for path in folder.iterdir()))


def embedding_name(path: Path, root: Path) -> str:
    """A file below an embeddings folder as it is typed in a prompt: "embedding:ice/vase/ball_color"."""
    return f"embedding:{path.relative_to(root).with_suffix('').as_posix()}"
