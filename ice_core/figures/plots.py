"""Loss curves as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

COLORS: tuple[tuple[int, int, int], ...] = (
    (230, 57, 80),
    (33, 119, 209),
    (34, 160, 90),
    (150, 70, 200),
    (240, 140, 20),
    (0, 165, 175),
    (215, 75, 160),
    (120, 110, 30),
)
"""One per concept or curve, in order; far apart, and clear against both light and dark pictures."""


def loss_plot(
    losses: Mapping[str, Sequence[float]],
    switch: int,
    size: tuple[int, int] = (960, 540),
    refinement: int | None = None,
) -> Image.Image:
    """Each loss over the steps, one strip each: raw values pale, their running mean strong, phases marked.

    switch: steps of phase 1; refinement: steps before phase 3, None without one. size: (width, height) in
    pixels.
    """
    dpi = 100
    figure = Figure(
        figsize=(size[0] / dpi, size[1] / dpi),
        dpi=dpi,
        layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, hspace=0.02),
    )
    curves = {k: v for k, v in losses.items() if any(x == x for x in v)}
    steps = max([1, *(len(v) for v in curves.values())])
    strips = figure.subplots(max(1, len(curves)), 1, sharex=True, squeeze=False)[:, 0]
    for i, (axes, (name, values)) in enumerate(zip(strips, curves.items(), strict=False)):
        color = [c / 255 for c in COLORS[i % len(COLORS)]]
        at = range(1, len(values) + 1)
        axes.plot(at, values, color=color, alpha=0.22, linewidth=0.8)
        axes.plot(at, running_mean(values, max(3, len(values) // 20)), color=color, linewidth=1.8)
        axes.set_ylabel(name, fontsize=8.5, color="#1c1e22")
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
        axes.yaxis.get_offset_text().set_fontsize(7)
        axes.locator_params(axis="y", nbins=3)
    # Only anchored training has a drift; its phases are others than the paper's.
    one, two = ("mixture", "residual") if "drift" in losses else ("object", "intrinsic")
    phases = [(0, f"1  {one}"), (switch, f"2  {two}")]
    if refinement is not None:
        phases.append((refinement, "3  refinement"))
    for axes in strips:
        axes.axvspan(0.5, switch + 0.5, color="#f3f5f8", zorder=0)
        for x, _ in phases[1:]:
            axes.axvline(x + 0.5, color="#8a909a", linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_xlim(0.5, max(steps, 2) + 0.5)
        axes.tick_params(labelsize=7.5, colors="#707680", length=2)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color("#c9ced6")
    top = strips[0]
    if not curves:
        top.set_axis_off()
        top.text(0.5, 0.5, "nothing is trained", color="#707680", ha="center", transform=top.transAxes)
    for x, name in phases:
        if curves and x < steps:
            top.annotate(
                name, (x + 0.5, 1.0), xycoords=("data", "axes fraction"), xytext=(4, 2),
                textcoords="offset points", fontsize=8, color="#707680",
            )  # fmt: skip
    strips[-1].set_xlabel("step", fontsize=8, color="#707680")
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return Image.open(buffer).convert("RGB")


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Centred mean over `window` values (fewer at the ends); values that are not numbers are left out."""
    half = window // 2
    result = []
    for i in range(len(values)):
        near = [v for v in values[max(0, i - half) : i + half + 1] if v == v]
        result.append(sum(near) / len(near) if near else float("nan"))
    return result
