"""Plain data, as JSON has it, back as frozen dataclasses; nothing of another type gets in."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def restored(kind: type[T], plain: Mapping[str, Any]) -> T:
    """The inverse of `dataclasses.asdict`, also after JSON: nested dataclasses, lists as tuples.

    Raises TypeError for an unknown name, or a value that is not of its field's type.
    """
    if not isinstance(plain, Mapping):
        raise TypeError(f"{kind.__name__} is {str(plain)[:40]!r}, not a mapping of values")
    hints = get_type_hints(kind)
    if unknown := [name for name in plain if name not in hints]:
        raise TypeError(f"{kind.__name__} has no {unknown[0]!r}")
    return checked(kind(**{name: _value(hints[name], value) for name, value in plain.items()}))


def _value(hint: Any, value: Any) -> Any:
    return restored(hint, value) if is_dataclass(hint) and isinstance(hint, type) else _frozen(value)


def _frozen(value: Any) -> Any:
    """Lists of JSON as tuples, within mappings too."""
    if isinstance(value, Mapping):
        return {name: _frozen(inner) for name, inner in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def checked(value: T) -> T:
    """The dataclass itself. Raises TypeError where a field is not of its type."""
    hints = get_type_hints(type(value))
    for field in fields(value):  # type: ignore[arg-type]
        content = getattr(value, field.name)
        if not _fits(content, hints[field.name]):
            raise TypeError(f"{field.name} is {str(content)[:40]!r}")
    return value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotation's type; a bool is no number, a whole number is a float."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return value in inner
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        kinds = (inner[0],) * len(value) if isinstance(value, tuple) and inner[-1] is ... else inner
        if not isinstance(value, tuple) or len(value) != len(kinds):
            return False
        return all(_fits(one, kind) for one, kind in zip(value, kinds, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(name, inner[0]) and _fits(one, inner[1]) for name, one in value.items()
        )
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)
