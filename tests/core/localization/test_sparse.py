"""The sparse nonnegative solver against scikit-learn's coordinate descent and against its own optimality."""

import pytest
import torch
from sklearn.linear_model import Lasso
from torch import Tensor

from ice_core.concepts import unit
from ice_core.errors import IceError
from ice_core.localization.retrieval.sparse import sparse_weights


def problem(
    seed: int, count: int, width: int, batch: int = 1, correlated: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Pictures that are noisy sums of three words each, [batch, width], and words [count, width]."""
    rng = torch.Generator().manual_seed(seed)
    shared = torch.randn(1, width, generator=rng)
    words = unit(torch.randn(count, width, generator=rng) + correlated * shared)
    mixture = sum(words[torch.randint(count, (batch,), generator=rng)] for _ in range(3))
    return unit(mixture + 0.02 * torch.randn(batch, width, generator=rng)), words


def lasso(z: Tensor, words: Tensor, penalty: float) -> Tensor:
    """scikit-learn minimises |y - X w|^2 / (2 n) + alpha |w|_1 over n rows; here the rows are the D numbers
    of an embedding, X = C^T, and half of our objective over D is theirs with alpha = lambda / D."""
    model = Lasso(
        alpha=penalty / z.shape[-1], positive=True, fit_intercept=False, tol=1e-12, max_iter=200_000
    )
    model.fit(words.double().T.numpy(), z[0].double().numpy())
    return torch.from_numpy(model.coef_)


@pytest.mark.parametrize(
    ("seed", "count", "width", "penalty", "correlated"),
    [
        (0, 50, 64, 0.2, 0.0),
        (1, 300, 64, 0.2, 0.0),
        (2, 300, 64, 0.05, 0.0),
        (3, 300, 64, 0.2, 0.5),
        (4, 2000, 128, 0.1, 0.3),
        (5, 600, 32, 0.02, 0.0),
    ],
)
def test_agrees_with_scikit_learn(seed, count, width, penalty, correlated):
    z, words = problem(seed, count, width, correlated=correlated)
    expected = lasso(z, words, penalty)
    exact = sparse_weights(z.double(), words.double(), penalty, tolerance=1e-12)[0]
    assert (exact > 0).sum() > 0
    torch.testing.assert_close(exact, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(sparse_weights(z, words, penalty)[0].double(), expected, atol=5e-3, rtol=0)


def test_a_penalty_above_every_correlation_gives_all_zeros():
    z, words = problem(0, 200, 32)
    penalty = (z @ words.T).max().item() * 1.01
    assert not sparse_weights(z, words, penalty).any()
    assert not lasso(z, words, penalty).any()


def test_a_zero_picture_gets_no_weights():
    _, words = problem(0, 200, 32)
    assert not sparse_weights(torch.zeros(2, 32), words, 0.1).any()


def test_optimality_conditions_hold_on_the_whole_dictionary():
    z, words = problem(7, 3000, 64, batch=3)
    penalty = 0.1
    weights = sparse_weights(z.double(), words.double(), penalty, tolerance=1e-12)
    correlation = (z.double() - weights @ words.double()) @ words.double().T
    assert (weights >= 0).all()
    assert correlation.max() <= penalty + 1e-5
    used = weights > 1e-4
    assert used.any(1).all()
    assert (correlation[used] - penalty).abs().max() < 1e-5


def test_a_batch_equals_its_rows_one_by_one():
    z, words = problem(8, 1000, 64, batch=5)
    together = sparse_weights(z.double(), words.double(), 0.1, tolerance=1e-12)
    alone = torch.cat([sparse_weights(row[None].double(), words.double(), 0.1, tolerance=1e-12) for row in z])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_a_working_set_that_must_grow_still_solves_the_whole_problem():
    z, words = problem(9, 4000, 48, batch=2)
    penalty = 0.01
    weights = sparse_weights(z.double(), words.double(), penalty, tolerance=1e-9)
    assert ((z.double() @ words.double().T > penalty).sum(1) > 1000).all()
    correlation = (z.double() - weights @ words.double()) @ words.double().T
    assert correlation.max() <= penalty + 1e-4


def test_weights_come_in_the_type_of_the_picture():
    z, words = problem(10, 100, 32)
    assert sparse_weights(z, words, 0.2).dtype == torch.float32
    assert sparse_weights(z, words, 0.2).shape == (1, 100)


@pytest.mark.parametrize("penalty", [0.0, -1.0, float("nan")])
def test_refuses_a_penalty_that_is_not_positive(penalty):
    z, words = problem(0, 10, 8)
    with pytest.raises(IceError, match="above 0"):
        sparse_weights(z, words, penalty)
