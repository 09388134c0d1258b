"""Mask measures against torchmetrics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_jaccard_index, binary_precision, binary_recall

from ice_core.errors import IceError
from ice_core.evaluation.masks import mask_scores, stacked


def box(top: int, left: int, bottom: int, right: int) -> Tensor:
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


TRUE = torch.stack([box(0, 0, 10, 10), box(8, 15, 18, 28)])


def test_matched_masks_score_as_torchmetrics_says() -> None:
    found = torch.stack([box(6, 14, 18, 25), box(2, 1, 12, 12)])
    scores = mask_scores(TRUE, found)
    for true, mine, n in ((TRUE[0], found[1], 0), (TRUE[1], found[0], 1)):
        assert scores.iou[n] == pytest.approx(binary_jaccard_index(mine.int(), true.int()).item())
        assert scores.recall[n] == pytest.approx(binary_recall(mine.int(), true.int()).item())
        precision = binary_precision(mine.int(), true.int()).item()
        assert scores.precision[1 - n] == pytest.approx(precision)


def test_what_was_missed_and_what_was_made_up_count_as_0() -> None:
    missed = mask_scores(TRUE, TRUE[:1])
    assert missed.iou == missed.recall == (1, 0)
    assert missed.precision == (1,)
    made_up = mask_scores(TRUE[:1], torch.stack([box(15, 0, 20, 5), TRUE[0]]))
    assert made_up.iou == (1,)
    assert made_up.precision == (0, 1)
    assert mask_scores(TRUE, stacked([], (20, 30))).iou == (0, 0)


def test_masks_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(IceError, match="resize"):
        mask_scores(TRUE, TRUE[:, :10])
    with pytest.raises(IceError, match="no true mask"):
        mask_scores(TRUE[:0], TRUE)
