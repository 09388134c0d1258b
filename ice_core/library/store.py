"""A library: one folder with a database of what is known of its concepts, and the concept sets themselves.

A set is a file in `sets/`, named by the hash of its content, so that what was added once is there once. It
is written and reaches the disk inside of the transaction that enters its concepts: a crash leaves both, or a
file that nothing names, which `check` removes. Removing goes the other way round. The lock of the transaction
also keeps other processes from touching files in between.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ice_core.errors import IceError
from ice_core.files.names import printable
from ice_core.library.checking import mend, troubles
from ice_core.library.entries import Checked, Entry, Hit, Overview, Query
from ice_core.library.finding import Vectors, by_words_and_properties, count, entries, ids_of, overview
from ice_core.library.keeping import ids_in, insert_concepts, insert_set, insert_vectors
from ice_core.library.schema import DATABASE, connect
from ice_core.tensor_files.digest import file_sha256

if TYPE_CHECKING:
    from ice_core.files.concept_set import SavedConcepts
    from ice_core.localization.retrieval.towers import ImageTextModel

SETS = "sets"
_INCOMING = "incoming.safetensors"
_DIGEST = re.compile("[0-9a-f]{64}")


class Library:
    """A person's concepts in one folder; any number of processes may have it open.

    One object may be used by several threads, one after the other. Use it as a context, or call `close`.
    """

    def __init__(self, folder: Path | str, create: bool = True) -> None:
        """Open a library; create: make one where there is none. Raises IceError when it cannot be opened."""
        self.folder = Path(folder)
        if not create and not (self.folder / DATABASE).is_file():
            raise IceError(f"there is no library in {folder}; `ice library add` makes one")
        try:
            (self.folder / SETS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise IceError(f"cannot open the library {folder}: {error}; choose another folder") from error
        self._connection = connect(self.folder)
        self._lock = RLock()
        self._vectors: dict[str, Vectors] = {}

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that no other process writes beside; all of it happens, or nothing."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise IceError(f"cannot write to the library {self.folder}: {error}; try again") from error

    def path_of(self, digest: str) -> Path:
        """The file of a set. Raises IceError where the database names what is no set of this library.

        A library may come from others: neither what it calls a set nor a link in its place leads out of it.
        """
        path = self.folder / SETS / f"{digest}.safetensors"
        if not _DIGEST.fullmatch(digest) or path.is_symlink():
            raise IceError(f"the library {self.folder} names a set {digest[:80]!r} that is none of its own")
        return path

    def add(
        self, saved: SavedConcepts, origin: str = "", tags: Sequence[str] = (), job: str | None = None
    ) -> tuple[int, ...]:
        """Keep a concept set -> ids of its concepts; when this returns, no crash can undo it.

        origin: where it came from, for people; tags: words for all of its concepts; job: what made it, which
        `finished` knows again. What is there already is not added again. Raises IceError for tags of several
        lines, and for what cannot be written.
        """
        from ice_core.library.intake import rows_of, titled

        if wrong := [tag for tag in tags if not tag.strip() or printable(tag) != tag]:
            raise IceError(f"the tag {wrong[0]!r} is not one line of text; use plain words")
        saved = titled(saved)
        rows = rows_of(saved)
        with self._writing() as connection:
            digest = self._write(saved)
            known = connection.execute("SELECT id FROM sets WHERE digest = ?", (digest,)).fetchone()
            # A job that is done again stands for what it made last.
            connection.execute("UPDATE sets SET job = NULL WHERE job = ?", (job,))
            if known is not None:
                if job is not None:
                    connection.execute("UPDATE sets SET job = ? WHERE id = ?", (job, known[0]))
                return ids_in(connection, known[0])
            number = insert_set(connection, digest, saved, printable(origin), job)
            insert_concepts(connection, number, saved, rows, tags)
            return ids_in(connection, number)

    def _write(self, saved: SavedConcepts) -> str:
        """The file of a set -> its hash. Only within a transaction."""
        from ice_core.files.concept_set import save_concept_set

        incoming = save_concept_set(saved, self.folder / SETS / _INCOMING, replace=True)
        digest = file_sha256(incoming)
        incoming.replace(self.path_of(digest))
        return digest

    def finished(self, job: str) -> tuple[int, ...] | None:
        """Ids of what a job made that `add` was told of; None where it made nothing yet."""
        with self._lock:
            row = self._connection.execute("SELECT id FROM sets WHERE job = ?", (job,)).fetchone()
            return None if row is None else ids_in(self._connection, row[0])

    def entry(self, number: int) -> Entry:
        """What is known of a concept. Raises IceError for an id that is not there."""
        with self._lock:
            return entries(self._connection, [number])[0]

    def thumbnail(self, number: int) -> bytes | None:
        """A small JPEG or PNG of a concept; None where its set held no picture. IceError as of `entry`."""
        with self._lock:
            row = self._connection.execute(
                "SELECT jpeg FROM thumbnails WHERE concept_id = ?", (number,)
            ).fetchone()
            if row is None:
                entries(self._connection, [number])
            return None if row is None else bytes(row[0])

    def pictured(self, *numbers: int) -> frozenset[int]:
        """Those of these concepts that have a thumbnail."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT concept_id FROM thumbnails WHERE concept_id IN (SELECT value FROM json_each(?))",
                (json.dumps(list(numbers)),),
            )
            return frozenset(int(one) for (one,) in rows)

    def sheet(self, number: int) -> bytes | None:
        """The contact sheet of the picture that a concept came from, a JPEG or PNG; None where there is none.

        Raises IceError for an id that is not there, and for a set whose file is missing or damaged.
        """
        with self._lock:
            entries(self._connection, [number])
            row = self._connection.execute("SELECT set_id FROM concepts WHERE id = ?", (number,)).fetchone()
            saved = self._set(row[0])
            return None if saved is None else saved.sheet

    def load(self, *numbers: int) -> list[SavedConcepts]:
        """Concepts as sets, one per picture that they came from, with these concepts only.

        Raises IceError for an id that is not there, and for a set whose file is missing or damaged.
        """
        from ice_core.library.intake import of_concepts

        with self._lock:
            wanted = {one.id: one.key for one in entries(self._connection, numbers)}
            rows = self._connection.execute(
                "SELECT id, set_id FROM concepts WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
                (json.dumps(list(wanted)),),
            )
            keys: dict[int, list[str]] = {}
            for number, one in rows.fetchall():
                keys.setdefault(one, []).append(wanted[number])
            found = [(self._set(one), inside) for one, inside in keys.items()]
            return [of_concepts(saved, inside) for saved, inside in found if saved is not None]

    def _set(self, number: int) -> SavedConcepts | None:
        """A whole set; None where it was removed. Raises IceError when its file is missing or damaged.

        Another process that removes some of its concepts puts another file in the place of this one, maybe
        between two lines of this.
        """
        from ice_core.files.concept_set import load_concept_set

        tried = ""
        while True:
            row = self._connection.execute("SELECT digest FROM sets WHERE id = ?", (number,)).fetchone()
            if row is None:
                return None
            try:
                return load_concept_set(self.path_of(row[0]))
            except IceError:
                if row[0] == tried:
                    raise
                tried = row[0]

    def search(self, query: Query) -> list[Hit]:
        """A page of the concepts for which everything holds: best first, then the newest first."""
        with self._lock:
            return by_words_and_properties(self._connection, query)

    def count(self, query: Query | None = None) -> int:
        """How many concepts there are for which everything holds."""
        with self._lock:
            return count(self._connection, query or Query())

    def overview(self) -> Overview:
        """What there is to choose from: families of base models, and values by axis."""
        with self._lock:
            return overview(self._connection)

    def search_by_picture(self, vector: NDArray[np.float32], fingerprint: str, query: Query) -> list[Hit]:
        """A page of what looks most like a picture: its embedding [D] by towers of this fingerprint.

        Only embeddings of the same towers are compared: concepts that `embed` has not seen with them are not
        found. The query's other demands hold too. Raises IceError for an embedding of another width.
        """
        with self._lock:
            vectors = self._vectors_of(fingerprint)
            if vectors is None:
                return []
            if vector.shape != (vectors.rows.shape[1],):
                raise IceError(
                    f"an embedding of shape {vector.shape} does not fit these towers; embed it anew"
                )
            unit = (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
            among = ids_of(self._connection, query)
            best = vectors.nearest(unit, among, query.offset, query.limit)
            found = entries(self._connection, [one for one, _ in best])
            return [Hit(entry, score) for entry, (_, score) in zip(found, best, strict=True)]

    def _vectors_of(self, fingerprint: str) -> Vectors | None:
        row = self._connection.execute(
            "SELECT id, width FROM towers WHERE fingerprint = ?", (fingerprint,)
        ).fetchone()
        if row is None:
            return None
        vectors = self._vectors.setdefault(fingerprint, Vectors(*row))
        vectors.refresh(self._connection)
        return vectors

    def embed(self, towers: ImageTextModel) -> Iterator[tuple[int, int]]:
        """Embed every concept that these towers have not seen yet -> (done, total), set after set.

        Concepts without a mask or a picture are left out. Raises IceError for a damaged set.
        """
        from ice_core.library.intake import vectors_of

        with self._lock:
            todo = self._connection.execute(
                "SELECT DISTINCT set_id FROM concepts WHERE area > 0 AND id NOT IN (SELECT concept_id "
                "FROM vectors v JOIN towers t ON t.id = v.towers_id WHERE t.fingerprint = ?) ORDER BY set_id",
                (towers.fingerprint,),
            ).fetchall()
        yield 0, len(todo)
        for done, (number,) in enumerate(todo, 1):
            saved = self._set(number)
            if saved is not None and (seen := vectors_of(saved, towers)):
                self._keep_vectors(number, towers, seen)
            yield done, len(todo)

    def _keep_vectors(
        self, number: int, towers: ImageTextModel, seen: Mapping[str, NDArray[np.float32]]
    ) -> None:
        with self._writing() as connection:
            insert_vectors(connection, number, towers.fingerprint, towers.name, seen)

    def remove(self, *numbers: int) -> None:
        """Forget concepts; a set of which all are gone goes with them, any other keeps the rest.

        Raises IceError, before anything is removed, for an id that is not there or a damaged set.
        """
        from ice_core.files.concept_set import load_concept_set
        from ice_core.library.intake import of_concepts

        with self._writing() as connection:
            gone = {one.id: one.key for one in entries(connection, numbers)}
            chosen = json.dumps(list(gone))
            sets = connection.execute(
                "SELECT DISTINCT s.id, s.digest FROM concepts c JOIN sets s ON s.id = c.set_id "
                "WHERE c.id IN (SELECT value FROM json_each(?))",
                (chosen,),
            ).fetchall()
            for number, digest in sets:
                rows = connection.execute("SELECT id, key FROM concepts WHERE set_id = ?", (number,))
                if left := [key for one, key in rows if one not in gone]:
                    smaller = self._write(of_concepts(load_concept_set(self.path_of(digest)), left))
                    connection.execute("UPDATE sets SET digest = ? WHERE id = ?", (smaller, number))
                else:
                    connection.execute("DELETE FROM sets WHERE id = ?", (number,))
            for table, column in (("concepts", "id"), ("words", "rowid")):
                connection.execute(
                    f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))", (chosen,)
                )
        # Only now: until the transaction is over a crash brings the concepts back, and they need their files.
        self._sweep()

    def _sweep(self) -> tuple[str, ...]:
        """Remove files in `sets/` that no set names -> their names."""
        with self._writing() as connection:
            named = {f"{digest}.safetensors" for (digest,) in connection.execute("SELECT digest FROM sets")}
            left = sorted(path for path in (self.folder / SETS).iterdir() if path.name not in named)
            for path in left:
                path.unlink()
            return tuple(path.name for path in left)

    def check(self) -> Checked:
        """Remove what a crash left, and look whether every set is there as it was written.

        Words are indexed anew where their index is damaged.
        """
        with self._writing() as connection:
            damage = mend(connection)
        removed = self._sweep()
        with self._lock:
            problems = (*damage, *troubles(self._connection, self.path_of))
            (sets,) = self._connection.execute("SELECT count(*) FROM sets").fetchone()
            return Checked(self.count(), sets, removed, problems)
