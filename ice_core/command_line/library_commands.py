"""What `ice library` does. Listing and searching by words load no torch."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ice_core.command_line.console import progress_display
from ice_core.errors import IceError
from ice_core.files.paths import atomic_write, free_path
from ice_core.library.entries import Entry, Hit, Query
from ice_core.library.store import Library


def add(arguments: argparse.Namespace) -> None:
    for path in arguments.paths:
        if not os.path.exists(path):
            raise IceError(f"there is no file or folder {path}")
    from ice_core.files.concept_set import load_concept_set

    sets = [(path, load_concept_set(_set_of(path))) for path in arguments.paths]
    with Library(arguments.library) as library:
        ids = [one for path, saved in sets for one in library.add(saved, str(path), arguments.tag)]
        _print_entries(library, [Hit(library.entry(one)) for one in ids], arguments.json, "added")


def file_result(folder: Path, out: Path, origin: str) -> None:
    """Keep what an extraction into `out` learned."""
    from ice_core.files.concept_set import load_concept_set

    with Library(folder) as library:
        ids = library.add(load_concept_set(_set_of(out)), origin)
    print(f"library:       {folder}, concepts {', '.join(str(one) for one in ids)}")


def _set_of(path: Path) -> Path:
    """The concept set of an extraction's folder, or the file itself."""
    return path / "concepts.safetensors" if path.is_dir() else path


def import_(arguments: argparse.Namespace) -> None:
    from ice_core.files.concept_set import load_concept_set
    from ice_core.run.events import Progress

    files = list(_set_files(arguments.paths))
    if not files:
        raise IceError(f"no concept sets in {', '.join(map(str, arguments.paths))}; they end in .safetensors")
    ids: list[int] = []
    refused: dict[str, str] = {}
    with Library(arguments.library) as library, progress_display() as show_progress:
        for done, path in enumerate(files, 1):
            try:
                ids += library.add(load_concept_set(path), str(path), arguments.tag)
            except IceError as error:
                refused[str(path)] = str(error)
            show_progress(Progress("importing", done, len(files)))
    for reason in refused.values():
        print(f"note: left out: {reason}", file=sys.stderr)
    if arguments.json:
        _print_json({"added": ids, "refused": refused})
    else:
        print(f"{len(ids)} concepts of {len(files) - len(refused)} sets are in {arguments.library}")


def _set_files(paths: Sequence[Path]) -> Iterator[Path]:
    """Files as they are; of folders, and folders in them, those that say that they are concept sets."""
    from ice_core.files.concept_set import concept_sets_in

    for path in paths:
        if not os.path.exists(path):
            raise IceError(f"there is no file or folder {path}")
        if path.is_dir():
            for folder in (path, *sorted(inner for inner in path.rglob("*") if inner.is_dir())):
                yield from concept_sets_in(folder)
        else:
            yield path


def list_(arguments: argparse.Namespace) -> None:
    with _opened(arguments) as library:
        query = _query(arguments)
        _print_entries(library, library.search(query), arguments.json, f"of {library.count(query)}")


def search(arguments: argparse.Namespace) -> None:
    if (arguments.same is None) != (arguments.like is None):
        raise IceError("--same and --like belong together: write for example --same material --like 12")
    if arguments.clip and not arguments.picture:
        raise IceError("--clip compares pictures: give one by --picture, or leave it out")
    if arguments.picture and not os.path.isfile(arguments.picture):
        raise IceError(f"there is no picture {arguments.picture}")
    same = None if arguments.same is None else (arguments.same, arguments.like)
    query = _query(arguments, " ".join(arguments.words), same)
    with _opened(arguments) as library:
        hits = _by_picture(library, arguments, query) if arguments.picture else library.search(query)
        _print_entries(library, hits, arguments.json, f"of {library.count(query)}")


def _by_picture(library: Library, arguments: argparse.Namespace, query: Query) -> list[Hit]:
    """What looks like a picture; concepts that these towers have not seen yet are shown to them first."""
    from ice_core.files.images import load_image
    from ice_core.localization.retrieval.towers import open_towers
    from ice_core.run.events import Progress
    from ice_core.world.bundled import load_bundled_towers

    picture = load_image(arguments.picture)
    towers = open_towers(arguments.clip) if arguments.clip else load_bundled_towers()
    with progress_display() as show_progress:
        for done, total in library.embed(towers):
            if total:
                show_progress(Progress("embedding concepts", done, total, towers.name))
    return library.search_by_picture(
        towers.encode_images(picture[None])[0].numpy(), towers.fingerprint, query
    )


def show(arguments: argparse.Namespace) -> None:
    with _opened(arguments) as library:
        entry = library.entry(arguments.id)
        if arguments.thumbnail:
            picture = library.thumbnail(arguments.id)
            if picture is None:
                raise IceError(f"concept {arguments.id} has no picture; leave --thumbnail out")
            print(atomic_write(free_path(arguments.thumbnail), picture), file=sys.stderr)
    if arguments.json:
        _print_json(_plain(Hit(entry)))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    rows = {
        "id": str(entry.id), "object": entry.label, "tags": ", ".join(entry.tags), "from": entry.origin,
        "picture": entry.title, "learned": entry.date, "added": entry.added,
        "base model": f"{entry.base_name} ({entry.architecture}, {entry.base_fingerprint[:12]})",
        **{axis: _candidates(entry, axis) for axis in entry.readings},
        "prompts": "\n".join(entry.prompts),
    }  # fmt: skip
    for name, value in rows.items():
        table.add_row(name, _literal(value))
    Console().print(table)


def export(arguments: argparse.Namespace) -> None:
    from ice_core.files.concept_set import ENDING, save_concept_set

    with _opened(arguments) as library:
        sets = library.load(*dict.fromkeys(arguments.ids))
    written = []
    for saved in sets:
        name = "-".join(concept.key for concept in saved.learned.concepts[:4])
        written.append(save_concept_set(saved, free_path(arguments.out / f"{name}.{ENDING}")))
    if arguments.json:
        _print_json({"files": [str(path) for path in written]})
    else:
        print("\n".join(str(path) for path in written))


def remove(arguments: argparse.Namespace) -> None:
    with _opened(arguments) as library:
        library.remove(*dict.fromkeys(arguments.ids))
        left = library.count()
    if arguments.json:
        _print_json({"removed": arguments.ids, "left": left})
    else:
        print(f"removed {len(arguments.ids)} of {left + len(arguments.ids)} concepts")


def check(arguments: argparse.Namespace) -> None:
    with _opened(arguments) as library:
        checked = library.check()
    if arguments.json:
        _print_json(asdict(checked))
    else:
        print(f"{checked.concepts} concepts in {checked.sets} sets")
        if checked.removed:
            print(f"removed {len(checked.removed)} files that a crash had left")
        for problem in checked.problems:
            print(problem)
    if checked.problems:
        raise IceError(f"the library {arguments.library} has {len(checked.problems)} problems, see above")


def _opened(arguments: argparse.Namespace) -> Library:
    return Library(arguments.library, create=False)


def _query(arguments: argparse.Namespace, words: str = "", same: tuple[str, int] | None = None) -> Query:
    has = {}
    for text in arguments.has:
        axis, separator, value = text.partition("=")
        if not (separator and axis and value):
            raise IceError(f"--has {text}: write for example --has material=metal")
        has[axis] = value
    return Query(
        words, arguments.base, tuple(arguments.tag), has, same, arguments.since, arguments.until,
        arguments.limit, arguments.offset,
    )  # fmt: skip


def _print_entries(library: Library, hits: Sequence[Hit], as_json: bool, note: str) -> None:
    if as_json:
        _print_json({"library": str(library.folder), "concepts": [_plain(hit) for hit in hits]})
        return
    from rich.console import Console
    from rich.table import Table

    ranked = any(hit.score for hit in hits)
    table = Table(caption=f"{len(hits)} concepts {note}")
    for column in ("id", "object", "properties", "tags", "base", "added", *(("score",) if ranked else ())):
        table.add_column(column)
    for hit in hits:
        entry = hit.entry
        read = ", ".join(entry.properties.values())
        cells = [str(entry.id), entry.key, read, ", ".join(entry.tags), entry.architecture, entry.added[:10]]
        table.add_row(*map(_literal, cells), *((f"{hit.score:.3f}",) if ranked else ()))
    Console().print(table)


def _literal(text: str) -> str:
    """Text in which rich sees no markup."""
    from rich.markup import escape

    return escape(text)


def _candidates(entry: Entry, axis: str) -> str:
    reading = entry.readings[axis]
    words = ", ".join(f"{one['value']} {one['weight']:.2f}" for one in reading["candidates"])
    return words if reading["fits"] else f"nothing fits ({words})" if words else "not read"


def _plain(hit: Hit) -> dict[str, Any]:
    entry = hit.entry
    return {**asdict(entry), "properties": entry.properties, "prompts": entry.prompts, "score": hit.score}


def _print_json(plain: Any) -> None:
    print(json.dumps(plain, indent=2, ensure_ascii=False))
