"""Whether a library is as it was written."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from ice_core.errors import IceError


def mend(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Index words anew where their index is damaged -> what is wrong that cannot be mended."""
    (state,) = connection.execute("PRAGMA quick_check").fetchone()
    if state != "ok":
        return (f"the database is damaged ({state}); import the files in sets/ into a new library",)
    try:
        connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")
    except sqlite3.DatabaseError:
        connection.execute("INSERT INTO words (words) VALUES ('rebuild')")
    return ()


def troubles(connection: sqlite3.Connection, path_of: Callable[[str], Path]) -> Iterator[str]:
    """What is wrong with sets, one line each, with the remedy. path_of: gives the file of a set's hash."""
    rows = connection.execute(
        "SELECT s.title, s.digest, group_concat(c.id) FROM sets s LEFT JOIN concepts c ON c.set_id = s.id "
        "GROUP BY s.id"
    )
    for title, digest, ids in rows.fetchall():
        if ids is None:
            yield f"the set {title!r} has no concepts; import it again"
        elif trouble := _trouble(path_of, digest):
            yield f"the set {title!r} {trouble}; import it again, or remove its concepts ({ids})"


def _trouble(path_of: Callable[[str], Path], digest: str) -> str:
    try:
        content = path_of(digest).read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except IceError:
        return "is a link, or none of this library's own"
    return "" if hashlib.sha256(content).hexdigest() == digest else "was changed or is damaged"
