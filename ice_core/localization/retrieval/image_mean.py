"""Where the embeddings of pictures lie as a whole: what SpLiCE (arXiv 2402.10376, section 4) takes off first.

Pictures and texts lie in two narrow cones of CLIP's space (Liang et al., "Mind the Gap", NeurIPS 2022), whose
middles say which tower spoke and not what was seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from ice_core.errors import IceError
from ice_core.localization.retrieval.cache import (
    default_cache_folder,
    read_embeddings,
    write_embeddings,
)
from ice_core.localization.retrieval.towers import ImageTextModel

PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "chelsea", "clock", "coffee", "coins", "grass", "gravel",
    "hubble_deep_field", "moon", "rocket",
)  # fmt: skip
"""Pictures of skimage.data that lie in the package itself: people, things, animals, surfaces."""


def estimate_image_mean(model: ImageTextModel, images: Iterable[Tensor]) -> Tensor:
    """Mean [D] of the unit embeddings of pictures [3, H, W] in 0..1, which may differ in size."""
    embeddings = []
    for image in images:
        check_image(image)
        embeddings.append(model.encode_images(image[None]).float().cpu())
    if not embeddings:
        raise IceError("no pictures to estimate the image mean from; give a handful of varied ones")
    return torch.cat(embeddings).mean(0)


def photograph_mean(model: ImageTextModel, cache_folder: Path | None = None) -> Tensor:
    """The image mean [D] of a model by the photographs of scikit-image, each whole and in four quarters.

    Read where an earlier call with the same model left it in `cache_folder` (None: the user's cache
    folder).
    """
    key = hashlib.sha256("\n".join((model.fingerprint, *PHOTOGRAPHS)).encode()).hexdigest()
    path = (cache_folder or default_cache_folder()) / f"image-mean-{key[:32]}.safetensors"
    cached = read_embeddings(path, key, 1)
    if cached is None:
        cached = estimate_image_mean(model, _pictures())[None]
        write_embeddings(path, key, cached)
    return cached[0]


def _pictures() -> Iterator[Tensor]:
    """[3, H, W] in 0..1 each."""
    from skimage import data
    from skimage.color import gray2rgb
    from skimage.util import img_as_float32

    for name in PHOTOGRAPHS:
        pixels = img_as_float32(getattr(data, name)())
        picture = torch.from_numpy(pixels if pixels.ndim == 3 else gray2rgb(pixels)).permute(2, 0, 1)
        height, width = picture.shape[1] // 2, picture.shape[2] // 2
        yield picture
        for top in (0, height):
            for left in (0, width):
                yield picture[:, top : top + height, left : left + width]


def check_image(image: Tensor) -> None:
    """Raise IceError for what is no picture [3, H, W] of numbers."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise IceError(f"a picture of shape {tuple(image.shape)}; [3, height, width] is needed")
    if not image.isfinite().all():
        raise IceError("the picture holds values that are not numbers (NaN or infinite); load it again")
