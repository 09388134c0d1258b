"""The tables of a library, and how a library of an earlier version gets those of today.

SQLite in WAL mode: readers and one writer at a time, of any number of processes, and after a crash all of a
transaction or none of it.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from filelock import FileLock

from ice_core.errors import IceError

DATABASE = "library.sqlite"
APPLICATION = 0x49434543
"""Marks the file as a library of ours: PRAGMA application_id."""
PATIENCE = 60.0
"""Seconds that one process waits for another's transaction."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE sets (
            id INTEGER PRIMARY KEY, digest TEXT NOT NULL, title TEXT NOT NULL, date TEXT NOT NULL,
            base_name TEXT NOT NULL, base_fingerprint TEXT NOT NULL, architecture TEXT NOT NULL,
            origin TEXT NOT NULL, job TEXT UNIQUE, added TEXT NOT NULL)""",
        "CREATE INDEX sets_by_digest ON sets (digest)",
        """CREATE TABLE concepts (
            id INTEGER PRIMARY KEY AUTOINCREMENT, set_id INTEGER NOT NULL REFERENCES sets ON DELETE CASCADE,
            key TEXT NOT NULL, label TEXT NOT NULL, score REAL, area REAL, readings TEXT NOT NULL,
            UNIQUE (set_id, key))""",
        """CREATE TABLE properties (
            concept_id INTEGER NOT NULL REFERENCES concepts ON DELETE CASCADE,
            axis TEXT NOT NULL, value TEXT NOT NULL, weight REAL NOT NULL,
            PRIMARY KEY (concept_id, axis)) WITHOUT ROWID""",
        "CREATE INDEX properties_by_value ON properties (axis, value, weight)",
        """CREATE TABLE tags (
            tag TEXT NOT NULL, concept_id INTEGER NOT NULL REFERENCES concepts ON DELETE CASCADE,
            PRIMARY KEY (tag, concept_id)) WITHOUT ROWID""",
        "CREATE INDEX tags_by_concept ON tags (concept_id)",
        """CREATE TABLE thumbnails (
            concept_id INTEGER PRIMARY KEY REFERENCES concepts ON DELETE CASCADE, jpeg BLOB NOT NULL)""",
        """CREATE VIRTUAL TABLE words USING fts5(
            label, properties, tags, title, base, tokenize = 'porter unicode61', prefix = '2 3')""",
    ),
    (
        """CREATE TABLE towers (
            id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
            width INTEGER NOT NULL)""",
        """CREATE TABLE vectors (
            towers_id INTEGER NOT NULL REFERENCES towers,
            concept_id INTEGER NOT NULL REFERENCES concepts ON DELETE CASCADE, vector BLOB NOT NULL,
            PRIMARY KEY (towers_id, concept_id))""",
        "CREATE INDEX vectors_by_concept ON vectors (concept_id)",
    ),
)
"""Statements that lead from each version to the next; the first from nothing to version 1."""

VERSION = len(MIGRATIONS)


def connect(folder: Path) -> sqlite3.Connection:
    """Open the database of a library, which is made where there is none, and bring it to today's version.

    Raises IceError for a file that is no library, for one of a later version, and when it cannot be written.
    """
    path = folder / DATABASE
    try:
        # Two processes that make the same library at once: changing to WAL does not wait for the other.
        with FileLock(folder / ".opening"):
            connection = sqlite3.connect(path, PATIENCE, isolation_level=None, check_same_thread=False)
            try:
                _prepare(connection, path)
            except BaseException:
                connection.close()
                raise
    except (sqlite3.Error, OSError) as error:
        raise IceError(f"cannot open the library {folder}: {error}; choose another folder") from error
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != APPLICATION:
        raise IceError(f"{path} is another program's database; choose another folder")
    if version > VERSION:
        raise IceError(
            f"the library {path.parent} is of version {version}, this program knows {VERSION}; "
            "update comfyui-ice to open it"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    # A concept that was confirmed survives a loss of power too.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    if version < VERSION:
        migrate(connection, version)


def migrate(connection: sqlite3.Connection, version: int, to: int = VERSION) -> None:
    """Bring the tables from one version to a later one, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statements in MIGRATIONS[version:to]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {to}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
