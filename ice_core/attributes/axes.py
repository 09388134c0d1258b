"""Which axes there are, and what a user writes to choose or add some."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType

from ice_core.attributes.values import Axis
from ice_core.errors import IceError

FOLDER = Path(__file__).parent / "axes"
"""`NAME.txt` each: a first line "# what it is: where from, licence", then one value a line, and pairs of
degrees, "narrow < wide"."""

RESERVED = ("instance", "object")
"""Names of an object's other tokens, which no axis can have."""


@cache
def known_axes() -> Mapping[str, Axis]:
    """The shipped dictionaries by name: color, material, texture, pattern, style, lighting, shape, mood."""
    axes = {}
    for path in sorted(FOLDER.glob("*.txt")):
        lines = path.read_text(encoding="utf-8").splitlines()
        axes[path.stem] = _axis(path.stem, [line for line in lines if not line.startswith("#")])
    return MappingProxyType(axes)


def parse_axes(
    texts: Sequence[str], known: Mapping[str, Axis] | None = None, files: bool = False
) -> tuple[Axis, ...]:
    """Axes as a user writes them, in that order.

    "color" takes the values of `known` (None: `known_axes()`); "finish=matte|glossy|satin" brings its
    own, for a known name too; a name that is unknown and brings none is a free axis. Two words with a <
    between them are opposite degrees, "pattern=striped|dotted|narrow<wide". With `files`
    "finish=@finishes.txt" brings the values of a text file, one a line; empty lines and those that begin with
    # say nothing. Raises IceError for a name that is no plain word, is reserved or comes twice, for no or one
    or repeated values, and for a file that cannot be read.
    """
    known = known_axes() if known is None else known
    parts = [tuple(part.strip() for part in text.partition("=")) for text in texts]
    check_axis_names([name for name, _, _ in parts])
    return tuple(
        _given(name, listed, files) if equals else known.get(name, Axis(name))
        for name, equals, listed in parts
    )


def check_axis_names(names: Sequence[str]) -> None:
    """Raise IceError for what cannot name axes: each has to be a word that fits in braces, once."""
    for name in names:
        if not re.fullmatch(r"[\w-]+", name):
            raise IceError(f"the axis {name!r} is not one plain word: write for example color")
        if name in RESERVED:
            raise IceError(f"the axis {name!r} is the name of another learned token: choose another word")
        if names.count(name) > 1:
            raise IceError(f"the axis {name!r} is named twice: name each axis once")


def _axis(name: str, given: Sequence[str]) -> Axis:
    """An axis of values and degrees as they are written."""
    split = [" ".join(one.split()).partition("<") for one in given]
    values = tuple(value for value, less, _ in split if not less)
    return Axis(name, values, tuple((low.strip(), high.strip()) for low, less, high in split if less))


def _given(name: str, listed: str, files: bool) -> Axis:
    """An axis that brings its own values."""
    given = _lines(name, Path(listed[1:].strip())) if files and listed.startswith("@") else listed.split("|")
    axis = _axis(name, given)
    values = axis.values
    if values in ((), ("",)):
        raise IceError(
            f"the axis {name!r} has no values after the =: write for example {name}=matte|glossy, or {name} "
            "alone"
        )
    if len(values) == 1:
        raise IceError(
            f"the axis {name!r} has {values[0]!r} only, so there is nothing to choose between: name two or "
            f"more, for example {name}={values[0]}|glossy"
        )
    return axis


def _lines(name: str, path: Path) -> list[str]:
    """The values in a file of an axis."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeError) as error:
        raise IceError(
            f"the values of the axis {name!r} cannot be read from {path}: {error}; give a text file (UTF-8) "
            "with one value a line"
        ) from error
    values = [line for line in lines if line and not line.startswith("#")]
    if not values:
        raise IceError(f"the file {path} has no values of the axis {name!r}: write one a line")
    return values
