"""Figures of unsupervised concept extraction as a table for people, with published ones beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COLUMNS = {
    "SIM^I": "sim_i",
    "SIM^C": "sim_c",
    "ACC^1": "acc_1",
    "ACC^3": "acc_3",
    "mIoU": "mean_iou",
    "recall": "recall",
    "precision": "precision",
}


@dataclass(frozen=True)
class Published:
    """What a paper reports of D1, with features of CLIP."""

    method: str
    source: str
    sim_i: float
    sim_c: float
    acc_1: float
    acc_3: float


PUBLISHED = (
    Published("HyperExpress", "arXiv 2603.11795", 0.699, 0.786, 0.504, 0.736),
    Published("ICE", "arXiv 2503.19902", 0.738, 0.822, 0.325, 0.518),
    Published("ConceptExpress", "arXiv 2407.07077", 0.689, 0.784, 0.263, 0.385),
    Published("Break-A-Scene", "as ConceptExpress reports it", 0.627, 0.773, 0.174, 0.282),
)

WARNING = (
    "Published figures are of Stable Diffusion on the 96 photographs of D1 with features of CLIP; ours are "
    "of {model} on {data}. Another model, other pictures or other features give other numbers, and the "
    "fewer concepts there are, the easier ACC is: compare rows of one block only."
)


def markdown(figures: Mapping[str, Mapping[str, Any]], model: str, data: str) -> str:
    """A block per kind of features with a row per method, then the published block and the warning.

    figures: by features, then by method, as `benchmarks/uce.py` writes them.
    """
    lines = [f"| | {' | '.join(COLUMNS)} |", f"| --- |{' --- |' * len(COLUMNS)}"]
    for features, methods in figures.items():
        lines.append(f"| **{features}** |{' |' * len(COLUMNS)}")
        lines += [_row(method, scores) for method, scores in methods.items()]
    lines.append(f"| **published, of another model** |{' |' * len(COLUMNS)}")
    lines += [_row(f"{one.method} ({one.source})", vars(one)) for one in PUBLISHED]
    return "\n".join([*lines, "", WARNING.format(model=model, data=data)])


def _row(name: str, scores: Mapping[str, Any]) -> str:
    cells = (f"{scores[key]:.3f}" if key in scores else "" for key in COLUMNS.values())
    return f"| {name} | {' | '.join(cells)} |"
