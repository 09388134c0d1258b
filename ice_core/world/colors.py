"""Colors of the rendered world: continuous, with names for what is nearest in a perceptual space.

A color is an sRGB triple in 0..1, as a person sees the paint under plain light. The renderer works on
`albedo = rgb ** GAMMA`, and shows `radiance ** (1 / GAMMA)`. Distances are CIEDE2000 (Sharma, Wu and Dalal
2005), by scikit-image.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
import torch

RGB = tuple[float, float, float]
Uniform = Callable[[float, float], float]

GAMMA = 1.6

NAMES: dict[str, RGB] = {
    "red": (0.87, 0.15, 0.15),
    "orange": (0.97, 0.58, 0.11),
    "yellow": (0.95, 0.88, 0.15),
    "green": (0.17, 0.66, 0.24),
    "turquoise": (0.15, 0.81, 0.80),
    "blue": (0.17, 0.31, 0.87),
    "purple": (0.58, 0.21, 0.74),
    "pink": (0.97, 0.61, 0.79),
}
"""The names that scenes are described by, with the middle of each name's range."""


def _hex(code: str) -> RGB:
    r, g, b = (int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return (r, g, b)


FINE_NAMES: dict[str, RGB] = {
    name: _hex(code)
    for name, code in {
        "crimson": "8c000f",
        "coral": "fc5a50",
        "salmon": "ff796c",
        "rust": "a83c09",
        "brown": "653700",
        "peach": "ffb07c",
        "amber": "feb308",
        "gold": "dbb40c",
        "lemon": "fdff52",
        "olive": "6e750e",
        "lime": "aaff32",
        "mint": "9ffeb0",
        "emerald": "01a049",
        "jade": "1fa774",
        "teal": "029386",
        "aqua": "13eac9",
        "sky": "82cafc",
        "azure": "069af3",
        "navy": "01153e",
        "indigo": "380282",
        "violet": "9a0eea",
        "lavender": "c79fef",
        "plum": "580f41",
        "magenta": "c20078",
        "rose": "cf6275",
    }.items()
}
"""Finer names, each one piece to CLIP's tokenizer (Randall Munroe's color survey, CC0)."""

SECOND_NAMES = ("white", "cream", "gray", "black")
"""Names of the second color of a pattern."""

DEFAULT_SECOND: RGB = (0.97, 0.97, 0.95)

NAME_MARGIN = 6.0
"""How much nearer (CIEDE2000) a named color is to its own name than to any other of `NAMES`."""
FINE_WITHIN = 16.0
_LIGHTNESS, _CHROMA, _HUE = (-15.0, 15.0), (0.55, 1.08), (-0.75, 0.75)
_SHADE = 7.0
_PALE = 0.72
_CANDIDATES = 192
_SECOND: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    # lightness, chroma, hue in radians
    "white": ((90, 97), (0, 4), (0, 6.28)),
    "cream": ((84, 91), (14, 24), (1.35, 1.7)),
    "gray": ((52, 66), (0, 4), (0, 6.28)),
    "black": ((14, 24), (0, 5), (0, 6.28)),
}
_REMEMBERED = 1 << 17
"""Colors whose words are kept: captions ask for the same ones over and over."""
_CONTRAST, _DARK_CONTRAST = 18.0, 34.0
"""Least difference of lightness between the two paints; dark ones need more, since shading darkens both."""


def lab(rgb: object) -> np.ndarray:
    """CIELAB (D65) of sRGB colors [..., 3] in 0..1."""
    from skimage.color import rgb2lab

    return np.asarray(rgb2lab(np.asarray(rgb, dtype=np.float64)))


def difference(first: object, second: object) -> np.ndarray:
    """CIEDE2000 between sRGB colors [..., 3], broadcast."""
    return lab_difference(lab(first), lab(second))


def lab_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """CIEDE2000 between CIELAB colors [..., 3], broadcast."""
    from skimage.color import deltaE_ciede2000

    return np.asarray(deltaE_ciede2000(*np.broadcast_arrays(first, second)))


def hue(rgb: object) -> np.ndarray:
    """Hue angle in degrees, 0..360, of the CIELCh form of sRGB colors [..., 3]."""
    from skimage.color import lab2lch

    return np.degrees(np.asarray(lab2lch(lab(rgb)))[..., 2])


@cache
def _table(fine: bool) -> tuple[tuple[str, ...], np.ndarray]:
    named = {**NAMES, **FINE_NAMES} if fine else NAMES
    return tuple(named), lab(list(named.values()))


def distances(rgb: object, fine: bool = False) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and the CIEDE2000 of colors [..., 3] to each: [..., names]. `fine`: with the finer names."""
    names, middles = _table(fine)
    return names, lab_difference(lab(rgb)[..., None, :], middles)


@lru_cache(maxsize=_REMEMBERED)
def color_words(rgb: RGB) -> tuple[str, ...]:
    """Plain names that are true of a color, the nearest first: two where it lies between two names."""
    names, far = distances(rgb)
    order = far.argsort()
    near = [i for i in order if far[i] < far[order[0]] + NAME_MARGIN]
    return tuple(names[i] for i in near[:2])


@lru_cache(maxsize=_REMEMBERED)
def mixture(rgb: RGB) -> tuple[tuple[str, float], ...]:
    """Names and weights (sum 1) whose middles mix to a color in CIELAB, of the few names around it.

    Non-negative least squares over the six nearest names.
    """
    from scipy.optimize import nnls

    names, middles = _table(fine=True)
    nearest = distances(rgb, fine=True)[1].argsort()[:6]
    # A last, heavy row holds the sum at one.
    matrix = np.concatenate([middles[nearest].T, np.full((1, len(nearest)), 1e3)])
    weights, _ = nnls(matrix, np.append(lab(rgb), 1e3))
    weights /= weights.sum()
    return tuple((names[i], float(w)) for i, w in zip(nearest, weights, strict=True) if w > 0.02)


@lru_cache(maxsize=_REMEMBERED)
def fine_word(rgb: RGB) -> str | None:
    """The nearest of all names, where it is a finer one and near enough to be said."""
    names, far = distances(rgb, fine=True)
    best = int(far.argmin())
    return names[best] if names[best] in FINE_NAMES and far[best] < FINE_WITHIN else None


@lru_cache(maxsize=_REMEMBERED)
def shade_word(rgb: RGB) -> str | None:
    """ "dark", "light" or "pale", as the color differs from the middle of its name's range, or None."""
    from skimage.color import lab2lch

    lightness, chroma, _ = lab2lch(lab(rgb))
    middle_lightness, middle_chroma, _ = lab2lch(lab(NAMES[color_words(rgb)[0]]))
    if lightness < middle_lightness - _SHADE:
        return "dark"
    if lightness > middle_lightness + _SHADE:
        return "light"
    return "pale" if chroma < _PALE * middle_chroma else None


def draw_color(name: str, uniform: Uniform, between: bool = False) -> RGB:
    """A color of the range of `name`; `between`: one that lies between it and another name.

    Drawn in CIELCh around the name's middle, among those that sRGB can show.
    """
    from skimage.color import lab2lch, lab2rgb, lch2lab, rgb2lab

    rng = torch.Generator().manual_seed(int(uniform(0, 2**31)))
    u = torch.rand(_CANDIDATES, 3, generator=rng, dtype=torch.float64).numpy()
    low, high = np.array([_LIGHTNESS[0], _CHROMA[0], _HUE[0]]), np.array([_LIGHTNESS[1], _CHROMA[1], _HUE[1]])
    jitter = low + u * (high - low)
    lightness, chroma, angle = lab2lch(lab(NAMES[name]))
    wanted = lch2lab(np.stack([lightness + jitter[:, 0], chroma * jitter[:, 1], angle + jitter[:, 2]], -1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # candidates that sRGB cannot show are dropped below
        rgb = np.clip(lab2rgb(wanted), 0, 1)
    shown = np.abs(rgb2lab(rgb) - wanted).max(-1) < 0.5
    names, far = distances(rgb)
    own = far[:, names.index(name)]
    other = np.where(np.array(names)[None] == name, np.inf, far).min(1)
    fits = shown & ((np.abs(other - own) < NAME_MARGIN) if between else (other - own >= NAME_MARGIN))
    if not fits.any():
        return NAMES[name]
    r, g, b = rgb[fits.argmax()].tolist()
    return (r, g, b)


def draw_second(base: RGB, uniform: Uniform) -> tuple[str, RGB]:
    """Name and color of a pattern's second paint, which stands out from the first in lightness."""
    from skimage.color import lab2rgb, lch2lab

    lightness = lab(base)[0]
    fitting = [
        name
        for name, ((low, high), _, _) in _SECOND.items()
        if lightness < low - _CONTRAST or lightness > high + _DARK_CONTRAST
    ]
    name = fitting[min(int(uniform(0, len(fitting))), len(fitting) - 1)]
    lch = [uniform(*span) for span in _SECOND[name]]
    r, g, b = np.clip(lab2rgb(lch2lab(np.array(lch))), 0, 1).tolist()
    return name, (r, g, b)
