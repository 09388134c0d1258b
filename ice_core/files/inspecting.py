"""What a file of concepts, an embedding or a LoRA holds, without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ice_core.composition import placeholders
from ice_core.concepts import LearnedConcepts, Reading
from ice_core.errors import IceError
from ice_core.files.concept_set import SavedConcepts, is_concept_set, load_concept_set
from ice_core.files.embeddings import load_concepts
from ice_core.files.images import uri_bytes
from ice_core.files.lora import load_lora
from ice_core.files.token_file import EMBEDDINGS, load_token
from ice_core.model.backbone import Token
from ice_core.model.encoders import family_of
from ice_core.tensor_files.safetensors_file import read_header

_LORA = ".lora_down.weight"


@dataclass(frozen=True)
class Contents:
    """What a file or folder holds.

    kind: "concept set", "embedding", "LoRA" or "folder of embeddings"; family: of models that it fits, by
    its widths; base: name, model-spec name and fingerprint of the model it was made with, as far as it
    says; tokens: shapes [n, D] by text encoder, by what a prompt names; labels: by object; readings: words
    with their probability, by object and axis; facts: whatever else it says of itself; thumbnail: a picture
    file, None where there is none.
    """

    path: str
    kind: str
    family: str
    base: Mapping[str, str]
    tokens: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    axes: tuple[str, ...] = ()
    readings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    seed: int | None = None
    steps: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    thumbnail: bytes | None = None

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it; of the thumbnail only whether there is one."""
        return {**asdict(self), "thumbnail": self.thumbnail is not None}


def inspect_path(path: Path) -> Contents:
    """Look into a file, or a folder of embeddings. Raises IceError for what is damaged or none of these."""
    path = Path(path)
    if path.is_dir():
        return _of_concepts(path, load_concepts(path), "folder of embeddings")
    if not path.is_file():
        raise IceError(f"there is no file or folder {path}")
    if path.suffix.lower() not in EMBEDDINGS:
        raise IceError(f"{path} is no file of concepts; give a .safetensors, .pt or .bin file, or a folder")
    header: dict[str, str] = {}
    if path.suffix.lower() == ".safetensors":
        header, shapes = read_header(path)
        if is_concept_set(header):
            return _of_set(path, load_concept_set(path), header)
        if any(name.endswith(_LORA) for name in shapes):
            return _of_lora(path, header)
    return _of_token(path, load_token(path), header)


def _of_concepts(path: Path, learned: LearnedConcepts, kind: str) -> Contents:
    tokens = placeholders(*learned.concepts)
    return Contents(
        path=str(path),
        kind=kind,
        family=_family(tokens),
        base=_base(learned.base_name, learned.architecture, learned.base_fingerprint),
        tokens=_shapes(tokens),
        labels={concept.key: concept.label for concept in learned.concepts},
        axes=learned.axes,
        readings={
            concept.key: {axis: _said(reading) for axis, reading in concept.readings.items()}
            for concept in learned.concepts
            if concept.readings
        },
        seed=learned.seed,
        steps=learned.steps,
    )


def _of_set(path: Path, saved: SavedConcepts, header: Mapping[str, str]) -> Contents:
    height, width = saved.found[0].mask.shape if saved.found else (0, 0)
    method = saved.settings.get("training", {})
    facts = {
        "title": saved.title,
        "date": saved.date,
        "version": saved.version,
        "method": str(method.get("method", "")) if isinstance(method, Mapping) else "",
        "masks": f"{', '.join(c.key for c in saved.found)} at {width} x {height}" if saved.found else "",
        "pictures": ", ".join(
            [f"{len(saved.thumbnails)} thumbnails"] * bool(saved.thumbnails)
            + [name for name in ("sheet", "picture") if getattr(saved, name)]
        ),
    }
    bare = _of_concepts(path, saved.learned, "concept set")
    return Contents(**{**vars(bare), "facts": _present(facts), "thumbnail": _thumbnail(header)})


def _of_token(path: Path, token: Token, header: Mapping[str, str]) -> Contents:
    tokens = {token.name: token}
    facts = {name: header.get(f"modelspec.{name}", "") for name in ("title", "description", "date")}
    return Contents(
        path=str(path),
        kind="embedding",
        family=_family(tokens),
        base=_base_of(header),
        tokens=_shapes(tokens),
        labels={header["ice.key"]: header["ice.label"]} if {"ice.key", "ice.label"} <= header.keys() else {},
        axes=_words(header, "ice.axes"),
        seed=_number(header, "ice.seed"),
        steps=_number(header, "ice.steps"),
        facts=_present({**facts, "role": header.get("ice.axis") or header.get("ice.role", "")}),
        thumbnail=_thumbnail(header),
    )


def _of_lora(path: Path, header: Mapping[str, str]) -> Contents:
    lora = load_lora(path)
    facts = {
        name: header.get(f"modelspec.{name}", "")
        for name in ("title", "description", "date", "trigger_phrase")
    }
    layers = {"layers": str(len(lora.down)), "rank": str(lora.rank), "alpha": f"{lora.alpha:g}"}
    return Contents(
        path=str(path),
        kind="LoRA",
        family=header.get("modelspec.architecture", "").partition("/")[0],
        base=_base_of(header),
        labels=dict(zip(_words(header, "ice.keys"), _words(header, "ice.labels"), strict=False)),
        axes=_words(header, "ice.axes"),
        seed=_number(header, "ice.seed"),
        steps=_number(header, "ice.steps"),
        facts=_present({**facts, **layers}),
        thumbnail=_thumbnail(header),
    )


def _family(tokens: Mapping[str, Token]) -> str:
    rows = next(iter(tokens.values())).rows
    return family_of({encoder: value.shape[1] for encoder, value in rows.items()})


def _shapes(tokens: Mapping[str, Token]) -> dict[str, dict[str, tuple[int, int]]]:
    return {
        name: {encoder: (rows.shape[0], rows.shape[1]) for encoder, rows in token.rows.items()}
        for name, token in tokens.items()
    }


def _base(name: str, architecture: str, fingerprint: str) -> dict[str, str]:
    return _present({"name": name, "architecture": architecture, "fingerprint": fingerprint})


def _base_of(header: Mapping[str, str]) -> dict[str, str]:
    architecture = header.get("modelspec.architecture", "").partition("/")[0]
    return _base(header.get("ice.base_name", ""), architecture, header.get("ice.base_fingerprint", ""))


def _said(reading: Reading) -> str:
    """ "red 97%", and "-" where nothing fits."""
    return f"{reading.value} {reading.candidates[0].weight:.0%}" if reading.value else "-"


def _present(facts: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in facts.items() if text}


def _words(header: Mapping[str, str], name: str) -> tuple[str, ...]:
    """A list of the header; what is none is left out, as it is of no use to a reader of files."""
    try:
        plain = json.loads(header.get(name, "[]"))
    except (ValueError, RecursionError):
        return ()
    return tuple(str(word) for word in plain) if isinstance(plain, list) else ()


def _number(header: Mapping[str, str], name: str) -> int | None:
    text = header.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _thumbnail(header: Mapping[str, str]) -> bytes | None:
    uri = header.get("modelspec.thumbnail")
    return uri_bytes(uri) if uri else None
