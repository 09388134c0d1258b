"""Concepts and embeddings into the tables of a library; every function belongs into a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ice_core.files.concept_set import SavedConcepts
    from ice_core.library.intake import Row


def insert_set(
    connection: sqlite3.Connection, digest: str, saved: SavedConcepts, origin: str, job: str | None
) -> int:
    """A set without its concepts yet -> its number."""
    learned = saved.learned
    cursor = connection.execute(
        "INSERT INTO sets (digest, title, date, base_name, base_fingerprint, architecture, origin, job, "
        "added) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            digest,
            saved.title,
            saved.date,
            learned.base_name,
            learned.base_fingerprint,
            learned.architecture,
            origin,
            job,
            datetime.now(timezone.utc).isoformat(timespec="seconds"),
        ),
    )
    return _number(cursor)


def insert_concepts(
    connection: sqlite3.Connection,
    number: int,
    saved: SavedConcepts,
    rows: Sequence[Row],
    tags: Sequence[str],
) -> None:
    """The concepts of a set, with all that they are found by."""
    for row in rows:
        cursor = connection.execute(
            "INSERT INTO concepts (set_id, key, label, score, area, readings) VALUES (?, ?, ?, ?, ?, ?)",
            (number, row.key, row.label, row.score, row.area, row.readings),
        )
        concept = _number(cursor)
        connection.executemany(
            "INSERT INTO properties VALUES (?, ?, ?, ?)",
            [(concept, axis, value, weight) for axis, (value, weight) in row.properties.items()],
        )
        connection.executemany("INSERT INTO tags VALUES (?, ?)", [(tag, concept) for tag in set(tags)])
        if row.thumbnail is not None:
            connection.execute("INSERT INTO thumbnails VALUES (?, ?)", (concept, row.thumbnail))
        read = " ".join(value for value, _ in row.properties.values())
        words = (concept, row.label, read, " ".join(tags), saved.title, saved.learned.base_name)
        connection.execute(
            "INSERT INTO words (rowid, label, properties, tags, title, base) VALUES (?, ?, ?, ?, ?, ?)", words
        )


def insert_vectors(
    connection: sqlite3.Connection,
    number: int,
    fingerprint: str,
    name: str,
    vectors: Mapping[str, NDArray[np.float32]],
) -> None:
    """Embeddings [D] of a set's concepts, by key, by towers of this fingerprint.

    A concept that was removed meanwhile gets none, and one that has its embedding keeps it.
    """
    width = len(next(iter(vectors.values())))
    connection.execute(
        "INSERT OR IGNORE INTO towers (fingerprint, name, width) VALUES (?, ?, ?)", (fingerprint, name, width)
    )
    for key, vector in vectors.items():
        connection.execute(
            "INSERT OR IGNORE INTO vectors SELECT t.id, c.id, ? FROM towers t, concepts c "
            "WHERE t.fingerprint = ? AND c.set_id = ? AND c.key = ?",
            (vector.astype(np.float16).tobytes(), fingerprint, number, key),
        )


def ids_in(connection: sqlite3.Connection, number: int) -> tuple[int, ...]:
    """Ids of the concepts of a set."""
    rows = connection.execute("SELECT id FROM concepts WHERE set_id = ? ORDER BY id", (number,))
    return tuple(int(one) for (one,) in rows)


def _number(cursor: sqlite3.Cursor) -> int:
    """The row that was inserted."""
    assert cursor.lastrowid is not None
    return cursor.lastrowid
