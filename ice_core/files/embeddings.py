"""Learned tokens as textual-inversion files: ComfyUI, AUTOMATIC1111/Forge and diffusers read them.

SD 1.x and 2.x files hold one tensor, `emb_params`; files for two text encoders hold one per encoder
(`clip_l`, `clip_g`). The header carries the Stability AI model spec and, under `ice.`, what made the file,
so that a folder of embeddings can be read back as the concepts of a picture. Beside its tokens' files an
object has one of several rows, the whole of it in the order of prompts, for `embedding:ice/vase`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ice_core.composition import placeholders, whole
from ice_core.concepts import LearnedConcept, LearnedConcepts, readings_from_plain, readings_to_plain
from ice_core.errors import IceError
from ice_core.files.concept_set import concept_sets_in, is_concept_set, load_concept_set
from ice_core.files.names import as_disks_compare, check_name
from ice_core.files.paths import atomic_write, free_path, safe_path
from ice_core.files.token_file import WHOLE, check_alike, load_token, token_of
from ice_core.model.backbone import Token
from ice_core.tensor_files.safetensors_file import TensorFile, read_header, read_tensors, tensor_bytes
from ice_core.version import package_version

_ROLES = ("instance", "object")
_REMEDY = "remove the damaged file or extract again"


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
    return atomic_write(path, tensor_bytes(tensors, header))


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
                "ice.role": "axis" if axis else part or WHOLE,
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


def load_concepts(folder: Path | str) -> LearnedConcepts:
    """Read what `save_concepts` wrote, from the files' headers alone; `folder` may be the run's own folder,
    or a concept set, a folder that holds one and no embeddings too.

    The tokens' files are read, those of whole objects are made of them. Raises IceError when there is
    nothing, when a concept's object token is missing or the instance token that it had, or when files of
    different runs are mixed.
    """
    folder = Path(folder)
    if folder.is_file():
        return load_concept_set(folder).learned
    if not folder.is_dir():
        raise IceError(f"there is no folder {folder}; give the output folder of an extraction")
    for source in (folder, folder / "embeddings"):
        if learned := concepts_of(sorted(source.glob("*.safetensors")), folder):
            return learned
    if sets := concept_sets_in(folder):
        if len(sets) > 1:
            names = ", ".join(path.name for path in sets)
            raise IceError(f"{folder} holds several concept sets ({names}); give the path of one")
        return load_concept_set(sets[0]).learned
    raise IceError(f"no learned concepts in {folder}; give the output folder of an extraction")


def concepts_of(paths: Sequence[Path], where: Path) -> LearnedConcepts | None:
    """The concepts whose tokens' files are among these; None where none is. where: for messages.

    Raises IceError as `load_concepts` does.
    """
    found: dict[tuple[int, str], dict[str, TensorFile]] = {}
    for path in paths:
        header = read_header(path, _REMEDY)[0]
        if "ice.key" in header and header.get("ice.role") != WHOLE:
            file = read_tensors(path, _REMEDY)
            slot = found.setdefault((file.entry("ice.index", int, 0), header["ice.key"]), {})
            slot[header.get("ice.axis") or header.get("ice.role", "")] = file
    if not found:
        return None
    first = next(file for roles in found.values() for file in roles.values())
    for roles in found.values():
        for file in roles.values():
            if _run_of(file.header) != _run_of(first.header):
                raise IceError(f"{where} mixes files of several extractions; keep each in its own folder")
    axes = tuple(str(axis) for axis in first.entry("ice.axes", list, []))
    learned = LearnedConcepts(
        concepts=tuple(_concept(key, roles, axes, where) for (_, key), roles in sorted(found.items())),
        axes=axes,
        base_name=first.header.get("ice.base_name", ""),
        base_fingerprint=first.header.get("ice.base_fingerprint", ""),
        architecture=first.header.get("ice.architecture", ""),
        seed=first.entry("ice.seed", int, 0),
        steps=first.entry("ice.steps", int, 0),
    )
    return check_alike(learned, str(where))


def open_concepts(path: Path | str) -> LearnedConcepts | Token:
    """What a prompt can name of a path: concepts of a folder or a concept set, or an embedding's token.

    Raises IceError for anything else.
    """
    path = Path(path)
    if path.is_dir() or (path.suffix.lower() == ".safetensors" and is_concept_set(read_header(path)[0])):
        return load_concepts(path)
    return load_token(path)


def _run_of(header: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(header.get(f"ice.{k}", "") for k in ("base_fingerprint", "axes", "seed", "steps"))


def _concept(key: str, roles: Mapping[str, TensorFile], axes: Sequence[str], where: Path) -> LearnedConcept:
    wanted = next(iter(roles.values())).entry("ice.parts", list, list(_ROLES))
    for role in _ROLES:
        if role not in roles and (role == "object" or role in wanted):
            raise IceError(f"{file_name(key, role)} is missing in {where}; put it back or extract again")
    tokens = {role: token_of(file) for role, file in roles.items()}
    of = roles["object"]
    try:
        readings = readings_from_plain({"": of.entry("ice.readings", dict, {})})[""]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise IceError(
            f"the readings in the header of {of.path} are damaged ({error!r}); {_REMEDY}"
        ) from error
    return LearnedConcept(
        key=key,
        label=of.header.get("ice.label", key),
        instance=tokens.get("instance"),
        object=tokens["object"],
        intrinsics={axis: tokens[axis] for axis in axes if axis in tokens},
        readings=readings,
    )
