"""Outlines drawn anew between what is surely an object and what is surely ground.

Grady, "Random Walks for Image Segmentation", PAMI 2006, as scikit-image has it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ice_core.localization.segmentation.components import without_holes

_SURE_GROUND = 0.5
_SURE_OBJECT = 0.9
_USUAL = 0.75
_LEAST_SEEDS = 6
_TOLERANCE = 1e-3
_FLAT = 1e-6


def walked(
    masks: Sequence[Tensor], relevance: Tensor, image: Tensor, beta: float, margin: int
) -> list[Tensor]:
    """Masks [H, W] bool without the pixels from which a walk reaches the ground first; none is emptied.

    relevance: [H, W] in 0..1, how far from background; below 0.5 is ground. Seeds of an object are pixels
    within `margin` of no border whose relevance is near that of its best quarter. image: [3, H, W] in 0..1;
    steps across differences of colour (CIELAB) are as unlikely as beta says. All on the CPU.
    """
    from scipy.ndimage import binary_erosion
    from skimage.color import rgb2lab
    from skimage.segmentation import random_walker

    seeds = np.zeros(tuple(relevance.shape), dtype=np.int32)
    seeds[(relevance < _SURE_GROUND).numpy()] = 1
    if not masks or not seeds.any() or image.std() < _FLAT:
        return list(masks)
    for number, mask in enumerate(masks, 2):
        sure = (mask & (relevance > _SURE_OBJECT * relevance[mask].quantile(_USUAL))).numpy()
        inner = sure & binary_erosion(mask.numpy(), iterations=margin)
        seeds[inner if inner.sum() >= _LEAST_SEEDS else sure] = number
    if seeds.all():
        return list(masks)
    with warnings.catch_warnings():
        # That probabilities of the solver stray from 0..1 by more than a thousandth decides no pixel.
        warnings.simplefilter("ignore", UserWarning)
        owner = random_walker(
            rgb2lab(image.permute(1, 2, 0).numpy()),
            seeds,
            beta=beta,
            mode="cg_j",
            tol=_TOLERANCE,
            channel_axis=-1,
        )
    # A glint is as unlike its object as the ground is.
    return [mask & without_holes(torch.from_numpy(owner == number)) for number, mask in enumerate(masks, 2)]
