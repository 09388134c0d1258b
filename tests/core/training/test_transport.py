"""The transport solver against POT's and against the Sinkhorn iterations that it replaces."""

from __future__ import annotations

import math

import ot
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.training.config import TrainingConfig
from ice_core.training.transport import cell_distances, potentials

EPSILON, ITERATIONS = TrainingConfig().alignment_epsilon, TrainingConfig().alignment_iterations


def maps(seed: int, size: tuple[int, int] = (8, 8)) -> tuple[Tensor, Tensor, Tensor]:
    """A smooth attention map [Q], the shares of a round object's cells [R], and their distances [R, Q]."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 1, 4, 4, generator=rng, dtype=torch.float64)
    logits = F.interpolate(coarse, size=size, mode="bilinear")
    rows, columns = (torch.arange(n) / max(size) for n in size)
    row, column, radius = torch.rand(3, generator=rng)
    object_ = ((rows[:, None] - row) ** 2 + (columns - column) ** 2 < (0.15 + 0.25 * radius) ** 2).flatten()
    covered = (0.2 + 0.8 * torch.rand(math.prod(size), generator=rng, dtype=torch.float64))[object_]
    cost = cell_distances(size).double()[object_]
    return (3 * logits).flatten().softmax(0), covered / covered.sum(), cost


def reference(a: Tensor, b: Tensor, cost: Tensor) -> tuple[Tensor, float]:
    """Converged f [Q], up to a constant, and the dual's value, by POT in float64."""
    _, log = ot.sinkhorn(
        a, b, cost.T, EPSILON, method="sinkhorn_log", numItermax=100_000, stopThr=1e-7, log=True, warn=False
    )
    f, g = EPSILON * (log["log_u"] - a.log()), EPSILON * (log["log_v"] - b.log())
    return f, ((f * a).sum() + (g * b).sum()).item()


def annealed_sinkhorn(a: Tensor, b: Tensor, cost: Tensor, iterations: int = 200) -> Tensor:
    """f after the paper's number of iterations, the entropy falling from 1 during half of them."""
    f = torch.zeros_like(a)
    for i in range(1, iterations + 1):
        e = EPSILON ** min(1, 2 * i / iterations)
        g = -e * ((f - cost) / e + a.log()).logsumexp(1)
        f = -e * ((g[:, None] - cost) / e + b.log()[:, None]).logsumexp(0)
    return f


def gradient(a: Tensor, f: Tensor) -> Tensor:
    """Of the transport cost by the attention's logits."""
    return a * (f - (f * a).sum())


def distance(one: Tensor, other: Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


def test_cell_distances_are_in_units_of_the_longer_side() -> None:
    cost = cell_distances((2, 4))
    assert cost.shape == (8, 8)
    assert cost[0, 1].item() == pytest.approx(0.25)
    assert cost[0, 7].item() == pytest.approx(math.hypot(1, 3) / 4)
    assert torch.equal(cost, cost.T)


@pytest.mark.parametrize("iterations", [1, 16, 200])
def test_potentials_match_the_plan_to_the_source_exactly(iterations: int) -> None:
    a, b, cost = maps(0)
    f, g = potentials(a, b, cost, EPSILON, iterations)
    plan = b[:, None] * a * ((f + g[:, None] - cost) / EPSILON).exp()
    torch.testing.assert_close(plan.sum(0), a)


@pytest.mark.parametrize("seed", range(6))
def test_the_default_iterations_come_to_pots_solution(seed: int) -> None:
    a, b, cost = maps(seed)
    expected, value = reference(a, b, cost)
    f, g = potentials(a.float(), b.float(), cost.float(), EPSILON, ITERATIONS)
    assert ((f * a).sum() + (g * b).sum()).item() == pytest.approx(value, rel=1e-6)
    assert distance(gradient(a, f.double()), gradient(a, expected)) < 1e-5


@pytest.mark.parametrize("seed", range(6))
def test_the_default_iterations_come_closer_than_two_hundred_of_sinkhorns(seed: int) -> None:
    a, b, cost = maps(seed)
    settled = gradient(a, potentials(a, b, cost, EPSILON, 2000)[0])
    f, _ = potentials(a.float(), b.float(), cost.float(), EPSILON, ITERATIONS)
    before = annealed_sinkhorn(a.float(), b.float(), cost.float())
    assert distance(gradient(a, f.double()), settled) < distance(gradient(a, before.double()), settled)


def test_many_iterations_satisfy_the_optimality_conditions() -> None:
    a, b, cost = maps(3, (12, 7))
    f, g = potentials(a, b, cost, EPSILON, 500)
    plan = b[:, None] * a * ((f + g[:, None] - cost) / EPSILON).exp()
    torch.testing.assert_close(plan.sum(1), b, atol=1e-9, rtol=1e-6)


def test_attention_far_from_a_single_cell_is_carried_there() -> None:
    cost = cell_distances((8, 8)).double()
    a = torch.zeros(64, dtype=torch.float64)
    a[63] = 1
    f, g = potentials(a, torch.ones(1, dtype=torch.float64), cost[:1], EPSILON, ITERATIONS)
    assert ((f * a).sum() + g.sum()).item() == pytest.approx(math.hypot(7, 7) / 8)
    assert torch.isfinite(f).all()
