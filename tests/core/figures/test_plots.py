"""Loss curves: of the size that was asked for, gaps and phases and all."""

from __future__ import annotations

import math

import numpy as np

from ice_core.figures.plots import loss_plot, running_mean


def test_the_loss_plot_has_the_size_that_was_asked_for_and_copes_with_gaps() -> None:
    losses = {"denoising": [0.5, 0.4, 0.3], "composition": [math.nan, 0.2, 0.1], "absent": [math.nan] * 3}
    plot = loss_plot(losses, 1, (500, 300))
    assert plot.size == (500, 300)
    assert (np.asarray(plot) < 250).any(-1).mean() > 0.02


def test_the_running_mean_is_centred_and_skips_what_is_no_number() -> None:
    assert running_mean([1, 2, 3, 4], 3) == [1.5, 2, 3, 3.5]
    assert running_mean([math.nan, 2, 4], 3) == [2, 3, 3]
    assert math.isnan(running_mean([math.nan], 3)[0])


def test_the_loss_plot_marks_refinement() -> None:
    losses = {"denoising": [1.0, 0.5, 0.4, 0.3, 0.2, 0.1], "prior": [float("nan")] * 4 + [0.5, 0.4]}
    plain, marked = loss_plot(losses, 2), loss_plot(losses, 2, refinement=4)
    assert plain.size == marked.size
    assert plain.tobytes() != marked.tobytes()
