"""How heads become one affinity, on attention whose eigenvalues are known."""

from __future__ import annotations

import pytest
import torch
from attention_blocks import blocks

from ice_core.localization.segmentation.affinities import AFFINITIES, Affinity
from ice_core.localization.segmentation.affinities.chains import second_eigenvalue, two_bounces
from ice_core.localization.segmentation.affinities.clusterability import by_clusterability, clusterability
from ice_core.localization.segmentation.affinities.walks import by_walks
from ice_core.localization.segmentation.cuts import normalized_cuts


def test_a_head_counts_by_the_parts_that_it_keeps_apart() -> None:
    assert clusterability(blocks(12)) == pytest.approx(0, abs=1e-5)
    assert clusterability(blocks(5, 4, 3)) == pytest.approx(2, abs=1e-5)
    # Eigenvalues of the leaking one: 1, and 1 - leak once less than there are parts.
    assert clusterability(blocks(6, 6, leak=0.1)) == pytest.approx(0.9**8, abs=1e-4)


def test_the_second_eigenvalue_is_that_of_a_dense_solver() -> None:
    """Of attention with complex eigenvalues too."""
    assert second_eigenvalue(blocks(12)) == 0
    assert second_eigenvalue(blocks(6, 6, leak=0.1)) == pytest.approx(0.9, abs=1e-4)
    for seed in range(5):
        noise = torch.randn(20, 20, generator=torch.Generator().manual_seed(seed))
        attention = (0.6 * noise + 3 * blocks(8, 12)).softmax(-1)
        sizes = torch.linalg.eigvals(attention.double()).abs().sort(descending=True).values
        assert second_eigenvalue(attention) == pytest.approx(float(sizes[1]), abs=0.02)


@pytest.mark.parametrize("weighed", [by_clusterability, two_bounces])
def test_heads_are_weighed_by_what_they_keep_apart(weighed: Affinity) -> None:
    apart, nowhere = blocks(4, 4), blocks(8)
    bonds = weighed([nowhere, apart, nowhere])
    torch.testing.assert_close(bonds, apart, atol=1e-4, rtol=0)


def test_walks_bind_places_that_lead_to_the_same_places() -> None:
    """Places of one half look at the other half only, and at nothing of their own."""
    crossed = blocks(3, 3).roll(3, 0)
    torch.testing.assert_close(by_walks([crossed]), blocks(3, 3) * 3, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", AFFINITIES)
def test_every_affinity_tells_parts_apart_and_has_an_answer_where_there_are_none(name: str) -> None:
    affinity = AFFINITIES[name]  # type: ignore[index]
    bonds = affinity([blocks(6, 5, 7, leak=0.05)] * 2)
    assert torch.equal(bonds, bonds.T)
    assert bonds.min() >= 0
    groups = normalized_cuts(bonds, most=0.8, least=3)
    assert [group.tolist() for group in groups] == [list(range(6)), list(range(6, 11)), list(range(11, 18))]
    nowhere = affinity([blocks(8), blocks(8)])
    torch.testing.assert_close(nowhere / nowhere.max(), torch.ones(8, 8))
