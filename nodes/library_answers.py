"""What the panel is told of the concept library, as bytes and headers; neither host nor server is needed.

Below one prefix: `GET` of nothing (what there is to choose from), `concepts` (a page), `concepts/ID`,
`concepts/ID/thumbnail` and `concepts/ID/sheet`; `DELETE` of `concepts/ID`. Ids are numbers, and pictures come
from the library's database and sets: no part of an address is ever a path.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ice_core.errors import IceError
from ice_core.files.names import is_text
from ice_core.library.entries import Entry, Query

from .shelf import Shelf, named

if TYPE_CHECKING:
    from ice_core.library.store import Library

MOST = 200
"""Concepts of a page."""
PAGE = 60
_LONGEST = 200
"""Characters of a parameter: no search is longer."""
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
"""A whole number that SQLite holds."""
_PARAMETERS = ("words", "base", "tag", "has", "same", "like", "since", "until", "limit", "offset")
_SEVERAL = ("tag", "has")
_FOREVER = "private, max-age=31536000, immutable"
"""For an address that names the very picture."""
_ASK_AGAIN = "private, no-cache"


@dataclass(frozen=True)
class Answer:
    """kind: the media type of the body."""

    status: int
    body: bytes = b""
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What is asked. path: below the prefix; query: parameters in order; known: ETags that the page has."""

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    known: str = ""


class _Refused(Exception):
    """Carries the answer that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def answer(shelf: Shelf, request: Request) -> Answer:
    """The answer to a request; what is wrong with it, or with the library, as {"error": ...}."""
    try:
        return _answer(shelf, request)
    except _Refused as refused:
        return _plain({"error": str(refused)}, refused.status)
    except (sqlite3.Error, OSError) as error:
        reason = f"the library {shelf.folder()} cannot be read: {error}; `ice library check` may mend it"
        return _plain({"error": reason}, 503)


def _answer(shelf: Shelf, request: Request) -> Answer:
    parts = request.path.split("/") if request.path else []
    if request.method == "DELETE":
        if len(parts) != 2 or parts[0] != "concepts":
            raise _Refused(405, "only a concept can be removed: DELETE concepts/ID")
        return _removed(shelf, _number(parts[1], "id"))
    if not parts:
        return _overview(shelf, _open_or_none(shelf))
    if parts == ["concepts"]:
        return _page(_open_or_none(shelf), _query(request.query))
    if parts[0] == "concepts" and len(parts) == 2:
        return _detail(_open(shelf), _number(parts[1], "id"))
    if parts[0] == "concepts" and len(parts) == 3 and parts[2] in ("thumbnail", "sheet"):
        return _picture(_open(shelf), _number(parts[1], "id"), parts[2], request)
    raise _Refused(
        404, "there is no such address; there are: concepts, concepts/ID and its thumbnail and sheet"
    )


def _open_or_none(shelf: Shelf) -> Library | None:
    try:
        return shelf.library()
    except IceError as error:
        raise _Refused(503, str(error)) from error


def _open(shelf: Shelf) -> Library:
    if (library := _open_or_none(shelf)) is None:
        raise _Refused(404, f"there is no library in {shelf.folder()}")
    return library


def _number(text: str, name: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise _Refused(400, f"{name} is {text[:40]!r}, not a whole number from 0 on")
    return int(text)


def _query(given: Sequence[tuple[str, str]]) -> Query:
    """Parameters as a question."""
    values: dict[str, list[str]] = {}
    for name, text in given:
        if name not in _PARAMETERS:
            raise _Refused(400, f"there is no parameter {name[:40]!r}; there are: {', '.join(_PARAMETERS)}")
        if len(text) > _LONGEST or not is_text(text):
            raise _Refused(400, f"{name} is too long, or no text; use at most {_LONGEST} characters")
        values.setdefault(name, []).append(text)
    if twice := [name for name, texts in values.items() if len(texts) > 1 and name not in _SEVERAL]:
        raise _Refused(400, f"{twice[0]} is given twice; give it once")
    one = {name: texts[0] for name, texts in values.items()}
    if ("same" in one) != ("like" in one):
        raise _Refused(400, "same (an axis) and like (the id of a concept) belong together")
    limit = _number(one.get("limit", str(PAGE)), "limit")
    if limit > MOST:
        raise _Refused(400, f"limit is {limit}, at most {MOST} concepts are told at once")
    try:
        return Query(
            words=one.get("words", ""), base=one.get("base", ""), tags=tuple(values.get("tag", ())),
            has=dict(_pair(text) for text in values.get("has", ())),
            same=(one["same"], _number(one["like"], "like")) if "same" in one else None,
            since=one.get("since", ""), until=one.get("until", ""),
            limit=limit, offset=_number(one.get("offset", "0"), "offset"),
        )  # fmt: skip
    except IceError as error:
        raise _Refused(400, str(error)) from error


def _pair(text: str) -> tuple[str, str]:
    axis, separator, value = text.partition("=")
    if not (axis and separator and value):
        raise _Refused(400, f"has is {text!r}; write an axis and what was read, as material=metal")
    return axis, value


def _overview(shelf: Shelf, library: Library | None) -> Answer:
    """Where the library is, and what there is to choose from."""
    folder = str(shelf.folder().absolute())
    if library is None:
        return _plain({"folder": folder, "exists": False, "concepts": 0, "families": {}, "values": {}})
    return _plain({"folder": folder, "exists": True} | asdict(library.overview()))


def _page(library: Library | None, query: Query) -> Answer:
    """A library that is not there yet is an empty one."""
    if library is None:
        return _plain({"total": 0, "offset": query.offset, "concepts": []})
    try:
        hits, total = library.search(query), library.count(query)
    except IceError as error:
        raise _Refused(400, str(error)) from error
    pictured = library.pictured(*(hit.entry.id for hit in hits))
    shown = [_short(library, hit.entry, hit.entry.id in pictured) for hit in hits]
    return _plain({"total": total, "offset": query.offset, "concepts": shown})


def _short(library: Library, entry: Entry, pictured: bool) -> dict[str, Any]:
    """What a page shows of a concept. thumbnail: the version of its picture, None where there is none."""
    return {
        "id": entry.id,
        "key": entry.key,
        "label": entry.label,
        "name": named(entry),
        "properties": entry.properties,
        "tags": entry.tags,
        "family": entry.architecture,
        "thumbnail": _version(library, entry) if pictured else None,
    }


def _version(library: Library, entry: Entry) -> str:
    """Tells the picture of a concept from that of another library which has the same id."""
    told = f"{library.folder.absolute()}\n{entry.id}\n{entry.key}\n{entry.title}\n{entry.added}"
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _detail(library: Library, number: int) -> Answer:
    """All that is known of a concept. problem: why its set cannot be read, None where it can."""
    entry = _entry(library, number)
    problem = None
    try:
        sheet = library.sheet(number) is not None
    except IceError as error:
        sheet, problem = False, str(error)
    pictured = number in library.pictured(number)
    shown = asdict(entry) | _short(library, entry, pictured)
    return _plain(shown | {"prompts": entry.prompts, "sheet": sheet, "problem": problem})


def _entry(library: Library, number: int) -> Entry:
    try:
        return library.entry(number)
    except IceError as error:
        raise _Refused(404, f"there is no concept {number}; it may have been removed") from error


def _picture(library: Library, number: int, which: str, request: Request) -> Answer:
    """A thumbnail, or a contact sheet; 304 where the page has it."""
    from ice_core.files.images import media_type

    entry = _entry(library, number)
    try:
        data = library.thumbnail(number) if which == "thumbnail" else library.sheet(number)
    except IceError as error:
        raise _Refused(409, str(error)) from error
    kind = media_type(data) if data else None
    if data is None or kind is None:
        raise _Refused(404, f"concept {number} has no {which}")
    version = next((text for name, text in request.query if name == "v"), "")
    lasting = which == "thumbnail" and version == _version(library, entry)
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {
        "Cache-Control": _FOREVER if lasting else _ASK_AGAIN,
        "ETag": tag,
        "X-Content-Type-Options": "nosniff",
    }
    if tag in (one.strip().removeprefix("W/") for one in request.known.split(",")):
        return Answer(304, headers=headers)
    return Answer(200, data, kind, headers)


def _removed(shelf: Shelf, number: int) -> Answer:
    _entry(_open(shelf), number)
    try:
        return _plain({"removed": number, "left": shelf.remove(number)})
    except IceError as error:
        raise _Refused(409, str(error)) from error


def _plain(value: Mapping[str, Any], status: int = 200) -> Answer:
    # Lone surrogates, as in a folder's name that is not UTF-8, become JSON's escapes.
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return Answer(status, body, headers={"Cache-Control": "no-store"})
