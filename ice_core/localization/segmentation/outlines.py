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
_DEPTH, _SLACK, _ROUGH_BETA = 0.2, 0.2, 30.0
"""How far inside a rough mask pixels are sure, and how far outside they may be the object's, as shares of its
side; chosen on masks that were grown, shrunk, boxed, coarse or moved."""


def walked(
    masks: Sequence[Tensor], relevance: Tensor, image: Tensor, beta: float, margin: int
) -> list[Tensor]:
    """Masks [H, W] bool without the pixels from which a walk reaches the ground first; none is emptied.

    relevance: [H, W] in 0..1, how far from background; below 0.5 is ground. Seeds of an object are pixels
    within `margin` of no border whose relevance is near that of its best quarter. image: [3, H, W] in 0..1;
    steps across differences of colour (CIELAB) are as unlikely as beta says. All on the CPU.
    """
    from scipy.ndimage import binary_erosion

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
    # A glint is as unlike its object as the ground is.
    return [mask & without_holes(own) for mask, own in zip(masks, _owned(seeds, image, beta), strict=True)]


def redrawn(masks: Sequence[Tensor], image: Tensor) -> list[Tensor]:
    """Rough masks [H, W] bool (boxes, blobs, a brush's strokes) drawn anew along the contours of an image
    [3, H, W] in 0..1; all on the CPU, none empty, and none is emptied.

    Surely an object's is what lies deep inside its mask, surely ground what is well outside of all; a random
    walk from each pixel between decides. No model is asked: on rough masks of known objects colors alone did
    as well as with the model's attention beside them.
    """
    from scipy.ndimage import binary_dilation, binary_erosion

    seeds = np.ones(tuple(image.shape[1:]), dtype=np.int32)
    for mask in masks:
        seeds[binary_dilation(mask.numpy(), np.ones((3, 3)), iterations=_steps(mask, _SLACK))] = 0
    for number, mask in enumerate(masks, 2):
        depth = _steps(mask, _DEPTH)
        core = binary_erosion(mask.numpy(), iterations=depth)
        while core.sum() < _LEAST_SEEDS and depth > 1:
            depth -= 1
            core = binary_erosion(mask.numpy(), iterations=depth)
        seeds[core if core.sum() >= _LEAST_SEEDS else mask.numpy()] = number
    if seeds.all() or not (seeds == 1).any() or image.std() < _FLAT:
        return list(masks)
    owned = zip(masks, _owned(seeds, image, _ROUGH_BETA), strict=True)
    return [without_holes(own) if own.any() else mask for mask, own in owned]


def _steps(mask: Tensor, share: float) -> int:
    """A share of a mask's side, as a square of its area has it, in pixels."""
    return max(1, round(share * float(mask.sum()) ** 0.5))


def _owned(seeds: np.ndarray, image: Tensor, beta: float) -> list[Tensor]:
    """[H, W] bool for each number from 2 in `seeds` [H, W]: where a walk comes upon it first. 1 is ground, 0
    is undecided."""
    from skimage.color import rgb2lab
    from skimage.segmentation import random_walker

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
    return [torch.from_numpy(owner == number) for number in range(2, int(seeds.max()) + 1)]
