"""Learned tokens as textual-inversion files: ComfyUI, AUTOMATIC1111/Forge and diffusers read them.

SD 1.x and 2.x files hold one tensor, `emb_params`; files for two text encoders hold one per encoder
(`clip_l`, `clip_g`). The header carries the Stability AI model spec and, under `ice.`, what made the file,
so that a folder of embeddings can be read back as the concepts of a picture. Beside its tokens' files an
object has one of several rows, the whole of it in the order of prompts, for `embedding:ice/vase`.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ice_core.composition import placeholders, whole
from ice_core.concepts import LearnedConcept, LearnedConcepts, readings_from_plain, readings_to_plain
from ice_core.errors import IceError
from ice_core.files.names import as_disks_compare, check_name
from ice_core.files.paths import atomic_write, free_path, safe_path
from ice_core.model.backbone import Token
from ice_core.version import package_version

_ROLES = ("instance", "object")
_WHOLE = "whole"
_ENCODER_OF_WIDTH = {1024: "clip_h", 1280: "clip_g"}
"""Whose rows others' `emb_params` holds, by width; anything else is read as CLIP-L's."""


def check_names(keys: Sequence[str], axes: Sequence[str], folder: Path = Path(".")) -> None:
    """Raise IceError when concepts and axes of these names could not be saved; call it before training.

    On some disks capital letters do not count: tokens whose files differ in nothing else are refused too.
    """
    taken: dict[str, str] = {}
    for key in dict.fromkeys(keys):
        check_name(key)
        names = {key: whole_name(key)} | {f"{key}.{role}": file_name(key, role) for role in (*_ROLES, *axes)}
        for token, name in names.items():
            if "/" in name or "\\" in name:
                raise IceError(f"the name {name!r} leaves the output folder; use plain words")
            safe_path(folder, name)
            other = taken.setdefault(as_disks_compare(name), token)
            if other != token:
                raise IceError(
                    f"the tokens {other} and {token} would share a file where capital letters do not count; "
                    "choose another word for one of them"
                )


def file_name(key: str, role: str) -> str:
    """ "ball-2", "color" -> "ball-2_color.safetensors"."""
    return f"{key}_{role}.safetensors"


def whole_name(key: str) -> str:
    """ "ball-2" -> "ball-2.safetensors"."""
    return f"{key}.safetensors"


def save_token(
    token: Token,
    path: Path,
    architecture: str,
    date: str,
    title: str = "",
    description: str = "",
    thumbnail: str | None = None,
    extra: Mapping[str, str] | None = None,
) -> Path:
    """Write one textual-inversion file of float32 rows [n, D].

    architecture: the base's model-spec name, "stable-diffusion-v1"; date: ISO 8601, given by the caller so
    that the same token gives the same file; thumbnail: a data URI; extra: further header entries.
    """
    rows = {name: value.detach().float().cpu().contiguous() for name, value in token.rows.items()}
    tensors = {"emb_params": next(iter(rows.values()))} if len(rows) == 1 else rows
    header = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/textual-inversion",
        "modelspec.title": title or path.stem,
        "modelspec.trigger_phrase": f"embedding:{path.stem}",
        "ice.version": package_version(),
        "ice.encoders": json.dumps(list(rows)),
        **(extra or {}),
    }
    optional = {"description": description, "date": date, "thumbnail": thumbnail}
    header |= {f"modelspec.{key}": value for key, value in optional.items() if value}
    return atomic_write(path, save(tensors, header))


def save_concepts(
    learned: LearnedConcepts,
    folder: Path | str,
    date: str = "",
    thumbnails: Mapping[str, str] | None = None,
    replace: bool = False,
) -> dict[str, Path]:
    """One file per object ("ball-2.safetensors") and token ("ball-2_color.safetensors") -> paths by name.

    thumbnails: data URIs by token name. Unless `replace` is set nothing is overwritten: where one of the
    files exists the whole set goes to the first free one of "folder-2", "folder-3", ...
    """
    folder = Path(folder)
    check_names([c.key for c in learned.concepts], learned.axes, folder)
    slots = [
        (index, concept, name.removeprefix(concept.key).removeprefix("."), token)
        for index, concept in enumerate(learned.concepts)
        for name, token in placeholders(concept).items()
    ]
    names = [
        file_name(concept.key, part) if part else whole_name(concept.key) for _, concept, part, _ in slots
    ]
    if not replace and any((folder / name).exists() for name in names):
        folder = free_path(folder)
    written = {}
    for (index, concept, part, token), name in zip(slots, names, strict=True):
        axis = "" if part in _ROLES else part
        parts = [one.name.removeprefix(f"{concept.key}.") for one in whole(concept)]
        written[token.name] = save_token(
            token,
            safe_path(folder, name),
            learned.architecture,
            date,
            title=f"{concept.key} {part}".strip(),
            description=_describe(concept, part),
            thumbnail=(thumbnails or {}).get(token.name),
            extra={
                "ice.base_name": learned.base_name,
                "ice.base_fingerprint": learned.base_fingerprint,
                "ice.architecture": learned.architecture,
                "ice.key": concept.key,
                "ice.label": concept.label,
                "ice.index": str(index),
                "ice.role": "axis" if axis else part or _WHOLE,
                "ice.axis": axis,
                "ice.axes": json.dumps(list(learned.axes)),
                "ice.parts": json.dumps(parts),
                "ice.seed": str(learned.seed),
                "ice.steps": str(learned.steps),
                **_readings_header(concept, part),
            },
        )
    return written


def _readings_header(concept: LearnedConcept, part: str) -> dict[str, str]:
    """What was read of an object lies with its object token."""
    if part != "object" or not concept.readings:
        return {}
    return {"ice.readings": json.dumps(readings_to_plain({"": concept.readings})[""], ensure_ascii=False)}


def _describe(concept: LearnedConcept, part: str) -> str:
    what = {
        "": f"All of one {concept.label}",
        "instance": f"What is particular about one {concept.label}",
        "object": f"What kind of thing a {concept.label} is",
    }.get(part, f"The {part} of one {concept.label}")
    return f"{what}, learned from a single picture."


def load_token(path: Path) -> Token:
    """Read a textual inversion of any maker as rows [n, D] per text encoder, float32.

    `.safetensors`; `.pt` and `.bin` only as far as torch.load(weights_only=True) goes. A file of ours keeps
    its token name, any other takes the file's. Raises IceError for a file that holds no embedding.
    """
    path = Path(path)
    if not path.is_file():
        raise IceError(f"there is no embedding file {path}")
    header: dict[str, str] = {}
    if path.suffix == ".safetensors":
        header, tensors = _read_safetensors(path)
    elif path.suffix in (".pt", ".bin"):
        tensors = _read_pickle(path)
    else:
        raise IceError(f"{path} is not an embedding; give a .safetensors, .pt or .bin file")
    rows = {k: v for k, v in tensors.items() if k.startswith("clip_")}
    if not rows and tensors:
        first = tensors.get("emb_params", next(iter(tensors.values())))
        rows = {_encoder_of(header, first): first}
    rows = {k: (v[None] if v.ndim == 1 else v).float() for k, v in rows.items()}
    if not rows or any(v.ndim != 2 or not v.numel() for v in rows.values()):
        raise IceError(f"{path} holds no embedding rows; it is not a textual inversion")
    if not all(v.isfinite().all() for v in rows.values()):
        raise IceError(f"{path} holds values that are not numbers; train or download it again")
    if "ice.key" not in header:
        return Token(path.stem, rows)
    if header.get("ice.role") == _WHOLE:
        return Token(header["ice.key"], rows)
    return Token(f"{header['ice.key']}.{header.get('ice.axis') or header.get('ice.role')}", rows)


def _encoder_of(header: Mapping[str, str], rows: Tensor) -> str:
    """Whose rows `emb_params` holds: as one of our files says, else by their width."""
    said = header.get("ice.encoders", "")
    if found := re.fullmatch(r'\["(clip_\w+)"\]', said):
        return found[1]
    return _ENCODER_OF_WIDTH.get(rows.shape[-1] if rows.ndim else 0, "clip_l")


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise IceError(f"cannot read {path}: {error}; the file is damaged or no safetensors file") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise IceError(
            f"cannot read {path} safely: the file is damaged or holds more than tensors; "
            "convert it to .safetensors first"
        ) from error
    if isinstance(content, Mapping) and isinstance(content.get("string_to_param"), Mapping):
        content = content["string_to_param"]
    if isinstance(content, Tensor):
        content = {"emb_params": content}
    if not isinstance(content, Mapping):
        return {}
    return {str(k): v.detach() for k, v in content.items() if isinstance(v, Tensor)}


def load_concepts(folder: Path | str) -> LearnedConcepts:
    """Read what `save_concepts` wrote, from the files' headers alone; `folder` may be the run's own folder.

    The tokens' files are read, those of whole objects are made of them. Raises IceError when there is
    nothing, when a concept's object token is missing or the instance token that it had, or when files of
    different runs are mixed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise IceError(f"there is no folder {folder}; give the output folder of an extraction")
    found: dict[tuple[int, str], dict[str, tuple[dict[str, str], Token]]] = {}
    for source in (folder, folder / "embeddings"):
        for path in sorted(source.glob("*.safetensors")):
            header = _read_header(path)
            if "ice.key" in header and header.get("ice.role") != _WHOLE:
                try:
                    slot = found.setdefault((int(header["ice.index"]), header["ice.key"]), {})
                    slot[header["ice.axis"] or header["ice.role"]] = header, load_token(path)
                except (KeyError, ValueError) as error:
                    if isinstance(error, IceError):
                        raise
                    raise IceError(f"the header of {path} is incomplete: {error}; extract again") from error
        if found:
            break
    if not found:
        raise IceError(f"no learned concepts in {folder}; give the output folder of an extraction")
    first = next(header for roles in found.values() for header, _ in roles.values())
    for roles in found.values():
        for header, _ in roles.values():
            if _run_of(header) != _run_of(first):
                raise IceError(f"{folder} mixes files of several extractions; keep each in its own folder")
    axes = tuple(json.loads(first["ice.axes"]))
    return LearnedConcepts(
        concepts=tuple(_concept(key, roles, axes, folder) for (_, key), roles in sorted(found.items())),
        axes=axes,
        base_name=first.get("ice.base_name", ""),
        base_fingerprint=first.get("ice.base_fingerprint", ""),
        architecture=first.get("ice.architecture", ""),
        seed=int(first.get("ice.seed", 0)),
        steps=int(first.get("ice.steps", 0)),
    )


def _read_header(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise IceError(f"cannot read {path}: {error}; remove the damaged file or extract again") from error


def _run_of(header: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(header.get(f"ice.{k}", "") for k in ("base_fingerprint", "axes", "seed", "steps"))


def _concept(
    key: str, roles: Mapping[str, tuple[dict[str, str], Token]], axes: Sequence[str], folder: Path
) -> LearnedConcept:
    wanted = next(iter(roles.values()))[0].get("ice.parts")
    for role in _ROLES:
        if role not in roles and (wanted is None or role in json.loads(wanted)):
            raise IceError(f"{file_name(key, role)} is missing in {folder}; put it back or extract again")
    header = roles["object"][0]
    return LearnedConcept(
        key=key,
        label=header["ice.label"],
        instance=roles["instance"][1] if "instance" in roles else None,
        object=roles["object"][1],
        intrinsics={axis: roles[axis][1] for axis in axes if axis in roles},
        readings=readings_from_plain({"": json.loads(header.get("ice.readings", "{}"))})[""],
    )
