"""Plain data becomes dataclasses only where every value is of its field's type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest

from ice_core.training.plain import checked, restored


@dataclass(frozen=True)
class Inner:
    weight: float = 1.0


@dataclass(frozen=True)
class Outer:
    name: str
    step: int
    method: Literal["words", "paper"] = "words"
    inner: Inner = field(default_factory=Inner)
    pairs: tuple[tuple[str, str], ...] = ()
    limit: float | None = None
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settled: bool = False
    rest: Any = None


PLAIN = {"name": "a", "step": 3, "pairs": [["a", "b"]], "limit": 2, "values": {"x": ["y"]}, "rest": [1]}


def test_what_was_a_dataclass_comes_back() -> None:
    outer = restored(Outer, PLAIN)
    assert outer == Outer("a", 3, pairs=(("a", "b"),), limit=2, values={"x": ("y",)}, rest=(1,))
    assert restored(Outer, asdict(outer)) == outer
    assert checked(outer) is outer


@pytest.mark.parametrize(
    "wrong",
    [
        {"step": "3"}, {"step": 3.5}, {"step": True}, {"name": None}, {"method": "magic"}, {"inner": []},
        {"inner": {"weight": "much"}}, {"inner": {"height": 1}}, {"pairs": [["a"]]}, {"pairs": "ab"},
        {"pairs": [["a", 1]]}, {"limit": "none"}, {"values": {"x": "y"}}, {"values": [1]}, {"settled": 1},
        {"unknown": 1},
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        restored(Outer, PLAIN | wrong)


@pytest.mark.parametrize("plain", [None, [], "text", 3, {}])
def test_what_is_no_mapping_of_its_fields_is_refused(plain: Any) -> None:
    with pytest.raises(TypeError):
        restored(Outer, plain)
