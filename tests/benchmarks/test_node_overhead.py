"""How `benchmarks/node_overhead.py` compares what both sides learned."""

from __future__ import annotations

from dataclasses import replace

import pytest
from node_overhead import least_cosine
from tokens import learned

from ice_core.errors import IceError


def test_the_row_that_differs_most_counts() -> None:
    both = learned(("ball", "zebra"))
    assert least_cosine(both, both) == pytest.approx(1)
    ball = both.concepts[0]
    turned = replace(ball.object, rows={name: -rows for name, rows in ball.object.rows.items()})
    other = replace(both, concepts=(replace(ball, object=turned), *both.concepts[1:]))
    assert least_cosine(both, other) == pytest.approx(-1)


def test_a_token_that_one_side_lacks_is_named() -> None:
    with pytest.raises(IceError, match=r"zebra\.color"):
        least_cosine(learned(("ball", "zebra")), learned(("ball",)))
