"""Between layouts: concept sets into embeddings and back, embeddings of others into what all tools read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ice_core.composition import placeholders
from ice_core.concepts import LearnedConcept, LearnedConcepts
from ice_core.errors import IceError
from ice_core.files.concept_set import SavedConcepts, load_concept_set, save_concept_set
from ice_core.files.embeddings import concepts_of, open_concepts, save_concepts, save_token
from ice_core.files.images import as_data_uri, uri_bytes
from ice_core.files.names import check_name
from ice_core.files.paths import free_path
from ice_core.files.token_file import EMBEDDINGS, WHOLE, check_alike, load_token
from ice_core.model.backbone import Token
from ice_core.model.encoders import architecture_of
from ice_core.tensor_files.safetensors_file import read_header


def convert(sources: Sequence[Path], out: Path) -> list[Path]:
    """Write what the sources hold in another layout -> the files that were written; none is overwritten.

    One embedding becomes a .safetensors that every tool loads; a concept set becomes a folder of
    embeddings; a folder of embeddings, or several embeddings, become a concept set. Raises IceError for
    sources that do not belong together, and an `out` of the wrong kind.
    """
    if not sources:
        raise IceError("there is nothing to convert; give an embedding, a concept set or a folder")
    if len(sources) > 1 or sources[0].is_dir():
        _check_ending(out, "a concept set")
        return [save_concept_set(join(sources), out)]
    if isinstance(token := open_concepts(sources[0]), Token):
        _check_ending(out, "an embedding")
        return [_standard(token, sources[0], free_path(out))]
    if out.suffix == ".safetensors":
        raise IceError(f"{sources[0]} is a concept set, which becomes a folder of embeddings, not {out.name}")
    return list(split(load_concept_set(sources[0]), out).values())


def _check_ending(out: Path, what: str) -> None:
    if out.suffix != ".safetensors":
        raise IceError(f"{what} is written, and {out} is no name for it; let it end with .safetensors")


def _standard(token: Token, source: Path, out: Path) -> Path:
    """One embedding's file in the layout of its model family."""
    header = read_header(source)[0] if source.suffix.lower() == ".safetensors" else {}
    kept = {name: text for name, text in header.items() if name.startswith("ice.")}
    spec = {
        name: header.get(f"modelspec.{name}", "") for name in ("date", "title", "description", "thumbnail")
    }
    return save_token(token, out, header.get("ice.architecture") or _architecture(token), **spec, extra=kept)


def split(saved: SavedConcepts, folder: Path) -> dict[str, Path]:
    """The embeddings of a concept set, as an extraction writes them -> paths by name."""
    thumbnails = {name: as_data_uri(picture) for name, picture in saved.thumbnails.items()}
    return save_concepts(saved.learned, folder, saved.date, thumbnails)


def join(sources: Sequence[Path]) -> SavedConcepts:
    """One concept set of a folder, or of embeddings: those of one extraction, or of others, an object each.

    Raises IceError for embeddings of several extractions or model families.
    """
    if len(sources) == 1:
        folder = sources[0]
        paths = _ours(folder.iterdir()) or _ours((folder / "embeddings").glob("*"))
        paths = paths or [path for path in sorted(folder.iterdir()) if path.suffix.lower() in EMBEDDINGS]
    else:
        if folders := [path for path in sources if path.is_dir()]:
            raise IceError(f"{folders[0]} is a folder; join one folder, or several embeddings")
        paths = list(sources)
    ours = _ours(paths)
    if strange := [path for path in paths if ours and path not in ours]:
        raise IceError(f"{strange[0]} is of another maker than {ours[0]}; join them apart")
    learned = concepts_of(ours, sources[0]) if ours else _of_others(paths, sources[0])
    if learned is None:
        raise IceError(f"{ours[0]} is a whole object; join the embeddings of its tokens")
    return SavedConcepts(learned, thumbnails=_thumbnails(learned, ours))


def _ours(paths: Iterable[Path]) -> list[Path]:
    """Those of the files that an extraction wrote, in the order of their names."""
    found = [path for path in sorted(paths) if path.suffix.lower() == ".safetensors"]
    return [path for path in found if "ice.key" in read_header(path)[0]]


def _of_others(paths: Sequence[Path], where: Path) -> LearnedConcepts:
    """Embeddings of others, each an object of its file's name, of which nothing more is known."""
    tokens = [load_token(path) for path in paths]
    if not tokens:
        raise IceError(f"there are no embeddings in {where}")
    concepts = []
    for token in tokens:
        check_name(token.name)
        concepts.append(
            LearnedConcept(token.name, token.name, None, Token(f"{token.name}.object", token.rows), {})
        )
    learned = LearnedConcepts(tuple(concepts), (), "", "", _architecture(tokens[0]), 0, 0)
    return check_alike(learned, str(where))


def _architecture(token: Token) -> str:
    """The model-spec name of what a token was made for."""
    return architecture_of({name: rows.shape[1] for name, rows in token.rows.items()})


def _thumbnails(learned: LearnedConcepts, paths: Sequence[Path]) -> dict[str, bytes]:
    """Thumbnails of the files' headers, by the name of their token."""
    known = placeholders(*learned.concepts)
    found = {}
    for path in paths:
        header = read_header(path)[0]
        role = header.get("ice.axis") or header.get("ice.role", "")
        name = header["ice.key"] if role == WHOLE else f"{header['ice.key']}.{role}"
        if name in known and header.get("modelspec.thumbnail"):
            found[name] = uri_bytes(header["modelspec.thumbnail"])
    return found
