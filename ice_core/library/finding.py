"""How a library answers: SQL for what words and properties say, one matrix product for pictures."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ice_core.errors import IceError
from ice_core.library.entries import Entry, Hit, Overview, Query

_COLUMNS = """c.id, c.key, c.label, c.score, c.area, s.title, s.date, s.added, s.origin, s.base_name,
    s.base_fingerprint, s.architecture,
    (SELECT group_concat(tag, char(10)) FROM (SELECT tag FROM tags WHERE concept_id = c.id ORDER BY tag)),
    c.readings"""
_FIELDS = tuple(field.name for field in fields(Entry))
_JOINED = "concepts c JOIN sets s ON s.id = c.set_id"
_NEIGHBORING = 0.5
"""What a value that shades into the wanted one counts for, beside the value itself."""


def entry_of(row: Sequence[Any]) -> Entry:
    values = dict(zip(_FIELDS, row, strict=True))
    tags, readings = values.pop("tags"), values.pop("readings")
    return Entry(tags=tuple(tags.split("\n")) if tags else (), readings=json.loads(readings), **values)


def entries(connection: sqlite3.Connection, ids: Sequence[int]) -> list[Entry]:
    """Concepts in the order of `ids`. Raises IceError for an id that is not there."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM {_JOINED} WHERE c.id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(ids)),),
    )
    found = {row[0]: entry_of(row) for row in rows}
    if missing := [str(one) for one in ids if one not in found]:
        raise IceError(f"there is no concept {', '.join(missing)}; `ice library list` shows those that are")
    return [found[one] for one in ids]


def full_text(words: str) -> str:
    """Words as FTS5 takes them: each as the beginning of a word, whatever signs they hold."""
    return " ".join(f'"{word}"*' for word in re.findall(r"\w+", words))


@dataclass(frozen=True)
class _Statement:
    """Tables, a condition and the values that it names, and what ranks: more is better."""

    tables: str
    where: str
    values: Mapping[str, Any]
    rank: str


def _statement(connection: sqlite3.Connection, query: Query) -> _Statement:
    tables, rank = _JOINED, "0.0"
    conditions: list[str] = []
    values: dict[str, Any] = {}
    if query.same is not None:
        axis, like = query.same
        value, near = _value_of(connection, axis, like)
        tables += " JOIN properties p ON p.concept_id = c.id AND p.axis = :axis AND c.id != :like"
        conditions.append("(p.value = :value OR p.value IN (SELECT value FROM json_each(:near)))")
        values |= {"axis": axis, "like": like, "value": value, "near": json.dumps(near)}
        rank = f"p.weight * CASE p.value WHEN :value THEN 1 ELSE {_NEIGHBORING} END"
    if query.words:
        if not (text := full_text(query.words)):
            raise IceError(f"{query.words!r} holds no word to look for; write for example red ball")
        tables += " JOIN words ON words.rowid = c.id"
        conditions.append("words MATCH :words")
        values["words"] = text
        rank = rank if query.same else "-words.rank"
    if query.key:
        conditions.append("c.key = :key COLLATE NOCASE")
        values["key"] = query.key
    if query.base:
        conditions.append("instr(s.architecture, :base) > 0")
        values["base"] = query.base
    for n, tag in enumerate(query.tags):
        conditions.append(f"c.id IN (SELECT concept_id FROM tags WHERE tag = :tag{n})")
        values[f"tag{n}"] = tag
    for n, (axis, value) in enumerate(query.has.items()):
        inner = f"SELECT concept_id FROM properties WHERE axis = :axis{n} AND value = :value{n}"
        conditions.append(f"c.id IN ({inner})")
        values |= {f"axis{n}": axis, f"value{n}": value}
    if query.since:
        conditions.append("s.added >= :since")
        values["since"] = query.since
    if query.until:
        conditions.append("substr(s.added, 1, 10) <= :until")
        values["until"] = query.until
    return _Statement(tables, " AND ".join(conditions), values, rank)


def _value_of(connection: sqlite3.Connection, axis: str, concept: int) -> tuple[str, list[str]]:
    """What was read of a concept on an axis, and the values that shade into it."""
    (entry,) = entries(connection, [concept])
    if axis not in entry.properties:
        known = ", ".join(entry.properties) or "nothing"
        raise IceError(f"no {axis} was read of concept {concept} ({entry.label}); there is: {known}")
    return entry.properties[axis], list(entry.readings[axis]["neighbors"])


def by_words_and_properties(connection: sqlite3.Connection, query: Query) -> list[Hit]:
    """A page of what holds, best first, then newest first."""
    asked = _statement(connection, query)
    ranked = connection.execute(
        f"SELECT c.id, {asked.rank} AS better FROM {asked.tables} WHERE {asked.where or 1} "
        "ORDER BY better DESC, c.id DESC LIMIT :limit OFFSET :offset",
        {**asked.values, "limit": query.limit, "offset": query.offset},
    ).fetchall()
    found = entries(connection, [one for one, _ in ranked])
    return [Hit(entry, float(score)) for entry, (_, score) in zip(found, ranked, strict=True)]


def count(connection: sqlite3.Connection, query: Query) -> int:
    """How many concepts hold, on all pages."""
    asked = _statement(connection, query)
    (number,) = connection.execute(
        f"SELECT count(*) FROM {asked.tables} WHERE {asked.where or 1}", asked.values
    ).fetchone()
    return int(number)


def overview(connection: sqlite3.Connection) -> Overview:
    """Families and values that concepts are of."""
    (concepts,) = connection.execute("SELECT count(*) FROM concepts").fetchone()
    families = connection.execute(
        f"SELECT s.architecture, count(*) AS number FROM {_JOINED} GROUP BY 1 ORDER BY number DESC, 1"
    )
    values: dict[str, dict[str, int]] = {}
    rows = connection.execute(
        "SELECT axis, value, count(*) AS number FROM properties GROUP BY 1, 2 ORDER BY 1, number DESC, 2"
    )
    for axis, value, number in rows:
        values.setdefault(axis, {})[value] = number
    return Overview(int(concepts), dict(families.fetchall()), values)


class Vectors:
    """Unit embeddings of one kind of towers, held in memory and kept in step with the database.

    Concepts are only ever added, under growing ids, or removed: what was read once stays as it is.
    """

    def __init__(self, towers: int, width: int) -> None:
        self.towers = towers
        self.ids: NDArray[np.int64] = np.zeros(0, np.int64)
        self.rows: NDArray[np.float32] = np.zeros((0, width), np.float32)
        self.state = (-1, -1)

    def refresh(self, connection: sqlite3.Connection) -> None:
        """Read what other processes, or this one, have added since, and forget what was removed."""
        (others,) = connection.execute("PRAGMA data_version").fetchone()
        if (state := (others, connection.total_changes)) == self.state:
            return
        self.state = state
        there = connection.execute(
            "SELECT concept_id FROM vectors WHERE towers_id = ? ORDER BY concept_id", (self.towers,)
        ).fetchall()
        ids = np.asarray(there, np.int64).reshape(-1)
        if np.array_equal(ids, self.ids):
            return
        kept = np.isin(self.ids, ids, assume_unique=True)
        new = ids[~np.isin(ids, self.ids, assume_unique=True)]
        rows = np.empty((len(ids), self.rows.shape[1]), np.float32)
        places = np.searchsorted(ids, self.ids[kept])
        rows[places] = self.rows[kept]
        if len(new):
            # One query of many rows; ids in between that are known already are rare.
            added = connection.execute(
                "SELECT concept_id, vector FROM vectors WHERE towers_id = ? AND concept_id >= ?",
                (self.towers, int(new[0])),
            )
            wanted = {int(one): int(place) for one, place in zip(new, np.searchsorted(ids, new), strict=True)}
            for one, blob in added:
                if one in wanted:
                    rows[wanted[one]] = np.frombuffer(blob, np.float16)
        self.ids, self.rows = ids, rows

    def nearest(
        self, vector: NDArray[np.float32], among: NDArray[np.int64] | None, start: int, number: int
    ) -> list[tuple[int, float]]:
        """Ids and cosines of a page, best first; among: only these ids."""
        ids, rows = self.ids, self.rows
        scores = rows @ vector
        if among is not None:
            chosen = np.isin(ids, among)
            ids, scores = ids[chosen], scores[chosen]
        number = min(start + number, len(ids))
        best = np.argpartition(-scores, number - 1)[:number] if 0 < number < len(ids) else np.arange(len(ids))
        # Equal scores in the order of their ids, whatever the partition did.
        best = best[np.lexsort((ids[best], -scores[best]))]
        return [(int(ids[i]), float(scores[i])) for i in best[start:number]]


def ids_of(connection: sqlite3.Connection, query: Query) -> NDArray[np.int64] | None:
    """Ids of all that holds; None where the query asks for nothing."""
    asked = _statement(connection, query)
    if not asked.where and query.same is None:
        return None
    rows = connection.execute(f"SELECT c.id FROM {asked.tables} WHERE {asked.where}", asked.values)
    return np.asarray(rows.fetchall(), np.int64).reshape(-1)
