"""The terms of Stage Two's loss against direct evaluation, and at their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from ice_core.training.losses import (
    alignment_loss,
    composition_loss,
    elementwise_triplet_loss,
    intrinsic_triplet_loss,
    masked_denoising_loss,
    triplet_loss,
)
from ice_core.training.transport import cell_distances


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def share(*shape: int, seed: int = 0) -> Tensor:
    return normal(*shape, seed=seed).softmax(-1)


def test_denoising_is_the_mean_square_over_covered_cells_and_channels() -> None:
    prediction, target = normal(2, 3, 4, 5), normal(2, 3, 4, 5, seed=1)
    mask = (normal(2, 1, 4, 5, seed=2) > 0).double()
    inside = mask.bool().expand_as(prediction)
    expected = (prediction[inside] - target[inside]).square().mean()
    torch.testing.assert_close(masked_denoising_loss(prediction, target, mask), expected)


def test_denoising_weighs_a_partly_covered_cell_by_its_share() -> None:
    prediction = torch.tensor([3.0, 1.0]).view(1, 1, 1, 2)
    mask = torch.tensor([0.25, 0.75]).view(1, 1, 1, 2)
    loss = masked_denoising_loss(prediction, torch.zeros_like(prediction), mask)
    assert loss.item() == pytest.approx(0.25 * 9 + 0.75 * 1)


def test_denoising_of_a_tiny_object_is_not_diluted() -> None:
    prediction = torch.full((1, 4, 8, 8), 2.0)
    mask = torch.zeros(1, 1, 8, 8)
    mask[0, 0, 3, 3] = 0.01
    assert masked_denoising_loss(prediction, torch.zeros_like(prediction), mask).item() == pytest.approx(4)


def test_denoising_with_an_empty_mask_is_zero_with_zero_gradient() -> None:
    prediction = normal(1, 2, 3, 3).requires_grad_()
    loss = masked_denoising_loss(prediction, normal(1, 2, 3, 3, seed=1), torch.zeros(1, 1, 3, 3).double())
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad is not None
    assert torch.count_nonzero(prediction.grad) == 0


def dense_sinkhorn(a: Tensor, b: Tensor, cost: Tensor, epsilon: float) -> Tensor:
    """Transport plan by scaling the Gibbs kernel (Cuturi 2013), run to convergence in float64."""
    kernel = a[:, None] * b * torch.exp(-cost / epsilon)
    u, v = torch.ones_like(a), torch.ones_like(b)
    for _ in range(20000):
        v = b / (kernel.T @ u)
        u = a / (kernel @ v)
    return u[:, None] * kernel * v


def test_alignment_equals_a_dense_reference() -> None:
    epsilon, cost = 0.05, cell_distances((3, 4)).double()
    a, b = share(12), share(12, seed=1)
    plan = dense_sinkhorn(a, b, cost, epsilon)
    expected = (plan * cost).sum() + epsilon * (plan * (plan / (a[:, None] * b)).log()).sum()
    torch.testing.assert_close(alignment_loss(a[None], b[None], cost, epsilon, 2000), expected)


def test_alignment_at_small_entropy_is_the_exact_transport_cost() -> None:
    cost = cell_distances((4, 4)).double()
    a, b = share(16), torch.zeros(16, dtype=torch.float64)
    b[[5, 6, 9]] = 1 / 3
    rows = np.kron(np.eye(16), np.ones((1, 16)))
    columns = np.kron(np.ones((1, 16)), np.eye(16))
    exact = linprog(
        cost.flatten().numpy(),
        A_eq=np.concatenate([rows, columns]),
        b_eq=np.concatenate([a.numpy(), b.numpy()]),
    ).fun
    value = alignment_loss(a[None], b[None], cost, 1e-3, 5000).item()
    assert exact - 1e-9 <= value <= exact + 1e-3 * math.log(16)


def test_alignment_gradient_passes_gradcheck() -> None:
    cost, attention = cell_distances((3, 3)).double(), share(2, 9).requires_grad_()
    mask = torch.zeros(2, 9, dtype=torch.float64)
    mask[0, 4:6], mask[1, 0:3] = 1, 0.5
    assert torch.autograd.gradcheck(lambda a: alignment_loss(a, mask, cost, 0.1, 100), (attention,))


def test_alignment_gradient_equals_autograd_through_the_iterations() -> None:
    epsilon, cost, b = 0.1, cell_distances((3, 3)).double(), share(9, seed=1)
    logits = normal(9).requires_grad_()
    a = logits.softmax(-1)
    f = torch.zeros_like(a)
    for _ in range(500):
        g = -epsilon * ((f[:, None] - cost) / epsilon + a.log()[:, None]).logsumexp(0)
        f = -epsilon * ((g - cost) / epsilon + b.log()).logsumexp(1)
    (through,) = torch.autograd.grad((f * a).sum() + (g * b).sum(), logits)
    (envelope,) = torch.autograd.grad(
        alignment_loss(logits.softmax(-1)[None], b[None], cost, epsilon, 500), logits
    )
    torch.testing.assert_close(envelope, through)


def test_alignment_falls_to_almost_nothing_when_attention_follows_its_gradient() -> None:
    cost = cell_distances((4, 4))
    mask = torch.zeros(1, 4, 4)
    mask[0, 1:3, 1:3] = 1
    logits = torch.zeros(1, 16, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.5)
    losses = []
    for _ in range(25):
        loss = alignment_loss(logits.softmax(-1), mask.flatten(1), cost)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.02 < 0.1 < losses[0]


def test_alignment_ignores_the_scale_of_both_maps() -> None:
    cost, a, b = cell_distances((2, 3)).double(), share(1, 6), share(1, 6, seed=1)
    torch.testing.assert_close(alignment_loss(a * 7, b / 3, cost), alignment_loss(a, b, cost))


def test_triplet_is_the_mean_over_active_triplets() -> None:
    anchor, positive, negative = (normal(6, 4, seed=s) for s in range(3))
    hinges = []
    for a, p, n in zip(anchor, positive, negative, strict=True):
        hinge = ((a - p) ** 2).sum() - ((a - n) ** 2).sum() + 0.05
        if hinge > 0:
            hinges.append(hinge)
    assert 0 < len(hinges) < 6
    torch.testing.assert_close(
        triplet_loss(anchor, positive, negative, 0.05), torch.stack(hinges).sum() / len(hinges)
    )


def test_satisfied_triplets_give_exactly_zero_and_no_gradient() -> None:
    anchor, negative = normal(3, 4), normal(3, 4, seed=1) + 5
    positive = anchor.clone().requires_grad_()
    margin = torch.full((3, 4), 1e-9, dtype=torch.float64)
    for loss in (
        triplet_loss(anchor, positive, negative, 0.05),
        elementwise_triplet_loss(anchor, positive, negative, margin),
    ):
        (gradient,) = torch.autograd.grad(loss, positive)
        assert loss.item() == 0
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_no_triplets_at_all_give_zero() -> None:
    none = torch.zeros(0, 4)
    assert elementwise_triplet_loss(none, none, none, none).item() == 0


def test_triplet_gradients_pass_gradcheck() -> None:
    tensors = tuple(normal(3, 4, seed=s).requires_grad_() for s in range(3))
    margin = normal(3, 4, seed=3).abs()
    assert torch.autograd.gradcheck(lambda a, p, n: triplet_loss(a, p, n, 0.05), tensors)
    assert torch.autograd.gradcheck(lambda a, p, n: elementwise_triplet_loss(a, p, n, margin), tensors)


def test_intrinsic_triplets_equal_a_loop_over_every_pair() -> None:
    words, tokens, label, kind = normal(3, 5), normal(3, 5, seed=1), normal(5, seed=2), normal(5, seed=3)
    triplets = [(words[k], tokens[k], tokens[j], words[j]) for k in range(3) for j in range(3) if j != k]
    triplets += [(label, kind, tokens[j], words[j]) for j in range(3)]
    hinges = [
        (a[d] - p[d]) ** 2 - (a[d] - n[d]) ** 2 + 0.7 * (a[d] - other[d]) ** 2
        for a, p, n, other in triplets
        for d in range(5)
    ]
    active = [h for h in hinges if h > 0]
    expected = torch.stack(active).sum() / len(active)
    torch.testing.assert_close(intrinsic_triplet_loss(words, tokens, label, kind, 0.7), expected)


def test_tokens_on_their_anchors_satisfy_every_intrinsic_triplet() -> None:
    words, label = normal(3, 5), normal(5, seed=1)
    tokens = words.clone().requires_grad_()
    loss = intrinsic_triplet_loss(words, tokens, label, label, 0.7)
    (gradient,) = torch.autograd.grad(loss, tokens)
    assert loss.item() == 0
    assert torch.count_nonzero(gradient) == 0


def test_one_axis_leaves_only_the_object_triplet() -> None:
    word, token, label, kind = normal(1, 5), normal(1, 5, seed=1), normal(5, seed=2), normal(5, seed=3)
    expected = elementwise_triplet_loss(label[None], kind[None], token, 0.7 * (label[None] - word) ** 2)
    torch.testing.assert_close(intrinsic_triplet_loss(word, token, label, kind, 0.7), expected)


def test_composition_is_a_squared_distance() -> None:
    assert composition_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0])).item() == 5
