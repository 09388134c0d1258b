"""What a user says of an object, in place of what was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ice_core.attributes.values import Axis, Reading, Readings, said
from ice_core.concepts import ConceptSet
from ice_core.errors import IceError


def check_overruled(texts: Sequence[str], axes: Sequence[Axis]) -> None:
    """Raise IceError for what `overrule` would refuse whatever objects there are."""
    _parsed(texts, axes)


def overrule(
    readings: Readings, texts: Sequence[str], concepts: ConceptSet, axes: Sequence[Axis]
) -> Readings:
    """Readings with a user's own words: "vase.material=ceramic"; "vase.material=" leaves the axis out.

    Any word will do, of the axis' values or not. Raises IceError for a text of another form, an object or
    an axis that does not exist, and for two words for one.
    """
    keys = [concept.key for concept in concepts.concepts]
    changed = {key: dict(readings.get(key, {})) for key in keys}
    for (key, name), (value, text) in _parsed(texts, axes).items():
        if key not in keys:
            raise IceError(f"{text!r} names no object {key!r}; there are: {', '.join(keys) or 'none'}")
        (axis,) = [axis for axis in axes if axis.name == name]
        told = said(name, value) if value else Reading(name, (), "user", fits=False)
        changed[key][name] = replace(told, degrees=axis.degrees_of(value) if value else ())
    return changed


def _parsed(texts: Sequence[str], axes: Sequence[Axis]) -> dict[tuple[str, str], tuple[str, str]]:
    """(object, axis) -> value and the text that says so."""
    names = [axis.name for axis in axes]
    told: dict[tuple[str, str], tuple[str, str]] = {}
    for text in texts:
        place, equals, value = (part.strip() for part in text.partition("="))
        key, dot, name = (part.strip() for part in place.rpartition("."))
        if not equals or not dot:
            raise IceError(f"{text!r} does not say what is what: write for example vase.material=ceramic")
        if name not in names:
            raise IceError(f"{text!r} names no axis {name!r}; there are: {', '.join(names) or 'none'}")
        if (key, name) in told:
            raise IceError(f"{key}.{name} is said twice: say it once")
        told[key, name] = (" ".join(value.split()), text)
    return told
