"""How long the sparse decomposition of a picture over a dictionary takes, beside scikit-learn's Lasso.

    python benchmarks/retrieval.py --words 1000 10000 100000 --out benchmarks/results/retrieval.json

Dictionaries are random unit vectors as wide as those of CLIP ViT-B/32 whose spectrum falls off as that of
word embeddings does (k^-0.7), which makes words alike; pictures are sums of eight words of falling weights
and of noise. scikit-learn solves with the loosest tolerance whose objective is as low as the best known
within `relative_objective` (its default settings otherwise, columns in memory as it likes them); ours as it
ships. Medians over pictures, one solve each, in turn.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import write_results
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso
from torch import Tensor

from ice_core.concepts import unit
from ice_core.localization.retrieval.sparse import sparse_weights

WIDTH, PENALTY, DECAY, MIXED, NOISE = 512, 0.2, 0.7, 8, 0.02
EQUAL = 1e-4
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8)


def problem(words: int, pictures: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures [P, D] and words [V, D], unit vectors."""
    rng = torch.Generator().manual_seed(seed)
    spectrum = torch.arange(1, WIDTH + 1).float().pow(-DECAY)
    dictionary = torch.randn(words, WIDTH, generator=rng) * spectrum
    # Centred, as the retriever's are.
    dictionary = unit(dictionary - dictionary.mean(0))
    weights = torch.arange(1, MIXED + 1).float().reciprocal()
    chosen = torch.randint(words, (pictures, MIXED), generator=rng)
    mixed = (weights[:, None] * dictionary[chosen]).sum(1)
    return unit(mixed + NOISE * torch.randn(pictures, WIDTH, generator=rng)), dictionary


def objective(z: Tensor, dictionary: Tensor, weights: Tensor) -> float:
    """|C^T w - z|^2 + 2 lambda |w|_1."""
    w = weights.double()
    return float((w @ dictionary.double() - z.double()).square().sum() + 2 * PENALTY * w.sum())


def lasso(z: Tensor, columns: Any, tolerance: float) -> Tensor:
    """scikit-learn's weights [V]; columns: [D, V], Fortran order."""
    model = Lasso(alpha=PENALTY / len(z), positive=True, fit_intercept=False, tol=tolerance, max_iter=100_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(columns, z.numpy())
    return torch.from_numpy(model.coef_)


def timed(call: Callable[[], Tensor]) -> tuple[Tensor, float]:
    began = time.perf_counter()
    return call(), time.perf_counter() - began


def measure(words: int, pictures: int, seed: int) -> dict[str, float]:
    """Medians for one size of dictionary."""
    images, dictionary = problem(words, pictures, seed)
    columns = np.asfortranarray(dictionary.T.numpy())
    sparse_weights(images[:1], dictionary, PENALTY)
    ours, theirs, apart, tolerances = [], [], [], []
    for z in images:
        mine, seconds = timed(lambda z=z: sparse_weights(z[None], dictionary, PENALTY)[0])
        ours.append(seconds)
        exact = sparse_weights(z[None].double(), dictionary.double(), PENALTY, 1e-12)[0]
        best = objective(z, dictionary, exact)
        for tolerance in TOLERANCES:
            other, seconds = timed(lambda z=z, t=tolerance: lasso(z, columns, t))
            if objective(z, dictionary, other) <= best * (1 + EQUAL):
                break
        theirs.append(seconds)
        tolerances.append(tolerance)
        apart.append(objective(z, dictionary, mine) / best - 1)
    return {
        "seconds": float(np.median(ours)),
        "lasso_seconds": float(np.median(theirs)),
        "times_faster": float(np.median(theirs) / np.median(ours)),
        "relative_objective": float(max(apart)),
        "lasso_tolerance": float(np.median(tolerances)),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--words", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--pictures", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    figures = {str(words): measure(words, options.pictures, options.seed) for words in options.words}
    settings = {
        "pictures": options.pictures,
        "seed": options.seed,
        "width": WIDTH,
        "penalty": PENALTY,
        "relative_objective": EQUAL,
    }
    write_results(options.out, figures, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
