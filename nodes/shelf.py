"""The concept library that the nodes and the panel share: where it lies, and what is picked from it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from ice_core.errors import IceError
from ice_core.library.entries import Entry, Query
from ice_core.library.place import VARIABLE, default_folder

if TYPE_CHECKING:
    from ice_core.files.concept_set import SavedConcepts
    from ice_core.library.store import Library

_NUMBERED = re.compile(r"(?:(?P<key>.*\S)\s+)?#(?P<number>[0-9]{1,18})", re.ASCII)
"""A concept as the panel writes it into a node: "vase #12", or "#12"."""
_LISTED = 6


def folder() -> Path:
    """What `ICE_LIBRARY` names, else `ice-library` in the host's own folder."""
    import folder_paths

    return default_folder(folder_paths.base_path)


class Shelf:
    """A library that is opened once for all threads, and anew where another one took its place."""

    def __init__(self, folder: Callable[[], Path] = folder) -> None:
        self.folder = folder
        self._lock = Lock()
        self._open: tuple[tuple[Path, int, int], Library] | None = None

    def library(self) -> Library | None:
        """None where there is no library. Raises IceError for one that cannot be opened."""
        from ice_core.library.schema import DATABASE
        from ice_core.library.store import Library

        path = self.folder()
        with self._lock:
            try:
                there = os.stat(path / DATABASE)
            except OSError:
                self._open = None
                return None
            # A file keeps its number while it is open, and so one that was removed cannot pass on its own.
            identity = (path, there.st_dev, there.st_ino)
            if self._open is None or self._open[0] != identity:
                self._open = (identity, Library(path, create=False))
            return self._open[1]

    def opened(self) -> Library:
        """The same; IceError where there is none."""
        if (library := self.library()) is None:
            raise IceError(
                f"there is no library in {self.folder()}; `library` on ICE Save Concepts makes one, and the "
                f"environment's {VARIABLE} names another folder"
            )
        return library

    def keep(self, saved: SavedConcepts, origin: str) -> tuple[int, ...]:
        """Files concepts as `ice extract --library` does, making a library where there is none -> ids."""
        from ice_core.library.store import Library

        # A handle of its own: nobody who reads waits for what is written.
        with Library(self.folder()) as library:
            return library.add(saved, origin)

    def remove(self, number: int) -> int:
        """Forgets a concept -> how many are left. Raises IceError as `Library.remove` does."""
        from ice_core.library.store import Library

        with Library(self.folder(), create=False) as library:
            library.remove(number)
            return library.count()

    def pick(self, concept: str, words: str) -> tuple[Entry, int]:
        """The concept that is meant -> it, and how many others might have been.

        concept: a number ("#12", with a name that has to fit, "vase #12") or a name, of which the newest is
        taken; words: what it must hold beside, as `Query.words`, the best where no name is given. Raises
        IceError where there is none.
        """
        concept, words = concept.strip(), words.strip()
        library = self.opened()
        if numbered := _NUMBERED.fullmatch(concept):
            return self._numbered(library, numbered["key"], int(numbered["number"])), 0
        if not concept and not words:
            raise IceError("name a concept of the library, for example vase, or write words to search for")
        query = Query(key=concept, words=words, limit=1)
        if hits := library.search(query):
            return hits[0].entry, library.count(query) - 1
        asked = " and ".join(
            part for part in (concept and f"named {concept!r}", words and f"with the words {words!r}") if part
        )
        raise IceError(f"the library {self.folder()} has no concept {asked}{_there_are(library, concept)}")

    def load(self, concept: str, words: str) -> SavedConcepts:
        """What is picked, with all that its set holds of it. Raises IceError for a damaged set too."""
        entry, _ = self.pick(concept, words)
        return self.taken(entry)

    def taken(self, entry: Entry) -> SavedConcepts:
        """A concept with all that its set holds of it. Raises IceError where it is gone, or damaged."""
        if found := self.opened().load(entry.id):
            return found[0]
        raise IceError(f"{named(entry)} was removed from the library {self.folder()}; choose another concept")

    def _numbered(self, library: Library, key: str | None, number: int) -> Entry:
        try:
            entry = library.entry(number)
        except IceError:
            entry = None
        if entry is not None and (key is None or key.lower() == entry.key.lower()):
            return entry
        wanted = f"#{number}" if key is None else f"{key} #{number}"
        hint = _there_are(library, key or "")
        raise IceError(f"the library {self.folder()} has no concept {wanted}{hint}")


def _there_are(library: Library, key: str) -> str:
    """What a wrong choice may have meant: others of the name, else the newest of all."""
    for query in (*((Query(key=key, limit=_LISTED),) if key else ()), Query(limit=_LISTED)):
        if hits := library.search(query):
            return f"; there are for example {', '.join(named(hit.entry) for hit in hits)}"
    return ", it is empty"


def named(entry: Entry) -> str:
    """A concept as `Shelf.pick` takes it back."""
    return f"{entry.key} #{entry.id}"


SHELF = Shelf()
"""That of the host."""


def names_in_library(concept: str, words: str) -> tuple[str, ...]:
    """What a prompt may name of what is picked. Raises IceError as `Shelf.load` does."""
    from ice_core.composition import placeholders

    return tuple(placeholders(*SHELF.load(concept, words).learned.concepts))
