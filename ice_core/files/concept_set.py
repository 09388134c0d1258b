"""Concept sets: all that was learned from one picture in one file, to keep or to send to a friend.

A safetensors file of these tensors:

- `tokens/<key>.<instance | object | axis>/<encoder>` [n, D] float32: the rows of each token;
- `masks/<key>` and `background` [H, ceil(W / 8)] uint8: eight pixels a byte, as `numpy.packbits` packs rows;
- `thumbnails/<token>`, `sheet`, `picture` [bytes] uint8: JPEG or PNG files as they are.

The header carries the Stability AI model spec and, under `ice.`, what made the file: the objects with labels,
scores and readings (`ice.concepts`), axes, base model, seed, steps and settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ice_core.composition import described, placeholders
from ice_core.concepts import (
    Concept,
    LearnedConcept,
    LearnedConcepts,
    readings_from_plain,
    readings_to_plain,
)
from ice_core.errors import IceError
from ice_core.files.images import as_data_uri
from ice_core.files.names import check_name
from ice_core.files.paths import atomic_write, free_path
from ice_core.files.token_file import as_rows, check_alike
from ice_core.model.backbone import Prompt, Token
from ice_core.tensor_files.safetensors_file import TensorFile, read_header, read_tensors, tensor_bytes
from ice_core.version import package_version

ENDING = "concepts.safetensors"
"""How a concept set's name ends where it has to be found among other files: "vase.concepts.safetensors"."""
FORMAT = "concept-set-1"
_REMEDY = "ask for the file again, or extract again"
_ENCODER = re.compile(r"clip_[a-z]+")


@dataclass(frozen=True)
class SavedConcepts:
    """All that was learned from one picture.

    found: the objects with their masks [H, W] and scores, fewer than were learned, or none, where masks are
    not known; background: [H, W] bool, of the masks' size; settings: plain data, see `ExtractionSettings`;
    title, date (ISO 8601), version: of the extraction; thumbnails: pictures by name of a token or object;
    sheet: the contact sheet; picture: what the concepts were learned from. Pictures are whole JPEG or PNG
    files.
    """

    learned: LearnedConcepts
    found: tuple[Concept, ...] = ()
    background: Tensor | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    date: str = ""
    version: str = field(default_factory=package_version)
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)
    sheet: bytes | None = None
    picture: bytes | None = None


def is_concept_set(header: Mapping[str, str]) -> bool:
    """Whether a file of this header is a concept set, of this version or a later one."""
    return header.get("ice.format", "").startswith("concept-set-")


def save_concept_set(saved: SavedConcepts, path: Path | str, replace: bool = False) -> Path:
    """Write everything into one file -> its path. The same content gives the same bytes.

    Unless `replace` is set nothing is overwritten: the name is counted up. Raises IceError for names that no
    file could have, and for masks of no object or of several sizes.
    """
    learned = saved.learned
    keys = [concept.key for concept in learned.concepts]
    for name in learned.tokens:
        check_name(name)
    _check_masks(saved, keys)
    path = Path(path) if replace else free_path(Path(path))
    return atomic_write(path, tensor_bytes(_tensors(saved), _header(saved, path)))


def _check_masks(saved: SavedConcepts, keys: list[str]) -> None:
    sizes = {tuple(concept.mask.shape) for concept in saved.found}
    if saved.background is not None:
        sizes.add(tuple(saved.background.shape))
    if len(sizes) > 1:
        raise IceError(f"the masks have several sizes ({sorted(sizes)}); bring them to one")
    if strange := [concept.key for concept in saved.found if concept.key not in keys]:
        raise IceError(f"there is a mask of {strange[0]!r}, of which nothing was learned; leave it out")


def _tensors(saved: SavedConcepts) -> dict[str, Tensor]:
    tensors = {
        f"tokens/{name}/{encoder}": rows.detach().to("cpu", torch.float32)
        for name, token in saved.learned.tokens.items()
        for encoder, rows in token.rows.items()
    }
    tensors |= {f"masks/{concept.key}": _packed(concept.mask) for concept in saved.found}
    if saved.background is not None:
        tensors["background"] = _packed(saved.background)
    pictures = {f"thumbnails/{name}": data for name, data in saved.thumbnails.items()}
    pictures |= {name: data for name in ("sheet", "picture") if (data := getattr(saved, name)) is not None}
    return tensors | {
        name: torch.frombuffer(bytearray(data), dtype=torch.uint8) for name, data in pictures.items()
    }


def _header(saved: SavedConcepts, path: Path) -> dict[str, str]:
    learned = saved.learned
    found = {concept.key: concept for concept in saved.found}
    labels = ", ".join(dict.fromkeys(concept.label for concept in learned.concepts))
    concepts = [
        {
            "key": concept.key,
            "label": concept.label,
            "score": found[concept.key].score if concept.key in found else None,
            "parts": [name.removeprefix(f"{concept.key}.") for name in concept.tokens],
            "readings": readings_to_plain({"": concept.readings})[""],
        }
        for concept in learned.concepts
    ]
    masks = [*(concept.mask for concept in saved.found), saved.background]
    shown = saved.picture or next(iter(saved.thumbnails.values()), None)
    entries = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{learned.architecture}/concept-set",
        "modelspec.title": saved.title or path.stem,
        "modelspec.description": f"{labels}, learned from a single picture.",
        "modelspec.trigger_phrase": ", ".join(
            Prompt(described(concept)).text for concept in learned.concepts
        ),
        "modelspec.date": saved.date,
        "modelspec.thumbnail": as_data_uri(shown) if shown else "",
        "ice.format": FORMAT,
        "ice.version": saved.version,
        "ice.title": saved.title,
        "ice.base_name": learned.base_name,
        "ice.base_fingerprint": learned.base_fingerprint,
        "ice.architecture": learned.architecture,
        "ice.axes": json.dumps(list(learned.axes), ensure_ascii=False),
        "ice.concepts": json.dumps(concepts, ensure_ascii=False),
        "ice.size": json.dumps(list(next((mask.shape for mask in masks if mask is not None), ()))),
        "ice.settings": json.dumps(saved.settings, ensure_ascii=False, sort_keys=True),
        "ice.seed": str(learned.seed),
        "ice.steps": str(learned.steps),
    }
    return {name: text for name, text in entries.items() if text}


def _packed(mask: Tensor) -> Tensor:
    """[H, W] bool -> [H, ceil(W / 8)] uint8."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().astype(bool), axis=1))


def load_concept_set(path: Path | str) -> SavedConcepts:
    """Read what `save_concept_set` wrote.

    Raises IceError for a file that is missing, damaged, no concept set, or of a later version.
    """
    file = read_tensors(Path(path), _REMEDY)
    if not is_concept_set(file.header):
        raise IceError(f"{path} is no concept set; give a concepts.safetensors of an extraction")
    if file.header["ice.format"] != FORMAT:
        raise IceError(
            f"{path} is a {file.header['ice.format']} of a later version; update comfyui-ice to read it"
        )
    try:
        return _saved(file)
    except IceError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IceError(f"the concept set {path} is damaged ({error!r}); {_REMEDY}") from error


def _saved(file: TensorFile) -> SavedConcepts:
    """The content of a file; KeyError, TypeError, ValueError or AttributeError for damage."""
    concepts = file.entry("ice.concepts", list, [])
    axes = tuple(file.entry("ice.axes", list, []))
    if not concepts or not all(isinstance(axis, str) for axis in axes):
        raise ValueError("no concepts, or axes that are no words")
    learned = LearnedConcepts(
        concepts=tuple(_learned(file, one) for one in concepts),
        axes=axes,
        base_name=file.header.get("ice.base_name", ""),
        base_fingerprint=file.header.get("ice.base_fingerprint", ""),
        architecture=file.header.get("ice.architecture", ""),
        seed=file.entry("ice.seed", int, 0),
        steps=file.entry("ice.steps", int, 0),
    )
    keys = [concept.key for concept in learned.concepts]
    if len(set(keys)) < len(keys):
        raise ValueError("two objects of one name")
    known = placeholders(*check_alike(learned, str(file.path)).concepts)
    thumbnails = {name: _picture(file, f"thumbnails/{name}") for name in known}
    return SavedConcepts(
        learned=learned,
        found=tuple(
            Concept(one["key"], one["label"], mask, float(one["score"]))
            for one in concepts
            if (mask := _mask(file, f"masks/{one['key']}")) is not None
        ),
        background=_mask(file, "background"),
        settings=file.entry("ice.settings", dict, {}),
        title=file.header.get("ice.title", ""),
        date=file.header.get("modelspec.date", ""),
        version=file.header.get("ice.version", ""),
        thumbnails={name: data for name, data in thumbnails.items() if data is not None},
        sheet=_picture(file, "sheet"),
        picture=_picture(file, "picture"),
    )


def _learned(file: TensorFile, plain: Mapping[str, Any]) -> LearnedConcept:
    key, label, parts = plain["key"], plain["label"], plain["parts"]
    if not isinstance(key, str) or not isinstance(label, str):
        raise TypeError(f"key {key!r}, label {label!r}")
    tokens = {part: _token(file, f"{key}.{part}") for part in parts}
    return LearnedConcept(
        key=key,
        label=label,
        instance=tokens.pop("instance", None),
        object=tokens.pop("object"),
        intrinsics=tokens,
        readings=readings_from_plain({"": plain["readings"]})[""],
    )


def _token(file: TensorFile, name: str) -> Token:
    check_name(name)
    start = f"tokens/{name}/"
    rows = {k.removeprefix(start): v for k, v in file.tensors.items() if k.startswith(start)}
    if strange := [encoder for encoder in rows if not _ENCODER.fullmatch(encoder)]:
        raise ValueError(f"the text encoder {strange[0]!r}")
    return Token(name, as_rows(rows, f"{name} in {file.path}"))


def _mask(file: TensorFile, name: str) -> Tensor | None:
    """[H, W] bool; None where there is none."""
    if name not in file.tensors:
        return None
    packed = file.tensors[name]
    height, width = file.entry("ice.size", list, [])
    if packed.dtype != torch.uint8 or tuple(packed.shape) != (height, (width + 7) // 8) or width < 1:
        raise ValueError(f"{name} of shape {tuple(packed.shape)} for {width} x {height} pixels")
    return torch.from_numpy(np.unpackbits(packed.numpy(), axis=1, count=width).astype(bool))


def _picture(file: TensorFile, name: str) -> bytes | None:
    if name not in file.tensors:
        return None
    data = file.tensors[name]
    if data.dtype != torch.uint8 or data.ndim != 1:
        raise ValueError(f"{name} is no picture")
    return data.numpy().tobytes()


def concept_sets_in(folder: Path) -> list[Path]:
    """The concept sets that lie right in a folder, by what their files say of themselves."""
    return [path for path in sorted(folder.glob("*.safetensors")) if is_concept_set(read_header(path)[0])]
