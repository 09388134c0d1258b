"""Seeded scenes of one to three solids on a ground, with every attribute known.

In the spirit of CLEVR (Johnson et al., CVPR 2017): an object is a combination of one value per axis.
About a tenth of the combinations never occur in training, so that composing can be tested on new ones.
A value is a range: below the name, every object has its own color, second color, scale of its pattern and
roughness, which no word says exactly.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

import torch

from ice_core.errors import IceError
from ice_core.world.colors import (
    DEFAULT_SECOND,
    FINE_NAMES,
    NAMES,
    RGB,
    Uniform,
    color_words,
    draw_color,
    draw_second,
    fine_word,
    shade_word,
)

AXES: dict[str, tuple[str, ...]] = {
    "kind": ("ball", "cube", "cylinder", "cone", "ring"),
    "color": tuple(NAMES),
    "material": ("metal", "rubber", "glass", "wood"),
    "pattern": ("plain", "striped", "dotted", "checked"),
}
"""Axis name -> its values, all plain English words."""

OBJECT_AXES = tuple(AXES)
GROUNDS = ("sand", "grass", "snow", "stone")
INTRINSIC_AXES = ("color", "material", "pattern")
"""The axes that one kind of object can have in any value: what Stage Two learns by default."""

MAX_OBJECTS = 3
HELD_OUT_PERCENT = 10

PATTERN_SCALES = (0.9, 1.6)
"""Smallest and largest factor on the size of stripes, dots and checks."""

EXTREMES = {"width": ("narrow", "wide"), "finish": ("shiny", "matte")}
"""Words for the ends of two ranges that no value names; said of the outer thirds of a range."""
ROUGH_MATERIALS = ("metal", "rubber")
_SAID_FROM = 0.4

Split = Literal["seen", "held_out", "any"]
Attributes = tuple[str, str, str, str]


@dataclass(frozen=True)
class SceneObject:
    """One solid. `x`, `z` and `size` (bounding radius) are world units; the frame is about 5 units wide.

    rgb: the paint itself, sRGB in 0..1; None is the middle of the name's range.
    second, second_rgb: the other paint of its pattern, by name and in sRGB (also where it is plain).
    scale: factor on the size of the pattern's elements.
    roughness: 0 polished to 1 dull; it shows on metal and rubber.
    """

    kind: str
    color: str
    material: str
    pattern: str
    x: float
    z: float
    size: float
    rotation: float
    rgb: RGB | None = None
    second: str = "white"
    second_rgb: RGB = DEFAULT_SECOND
    scale: float = 1.0
    roughness: float = 0.3

    @property
    def paint(self) -> RGB:
        """The base color, sRGB in 0..1."""
        return NAMES[self.color] if self.rgb is None else self.rgb

    def words(self, axis: str) -> tuple[str, ...]:
        """Every word that is true of an axis, also of "fine" (finer color names), "shade", "second",
        "width" and "finish"."""
        if axis == "color":
            return color_words(self.paint)
        if axis == "fine":
            return tuple(w for w in (fine_word(self.paint),) if w)
        if axis == "shade":
            return tuple(w for w in (shade_word(self.paint),) if w)
        if axis == "second":
            return () if self.pattern == "plain" else (self.second,)
        if axis in EXTREMES:
            degree = self.degree(axis)
            return (EXTREMES[axis][degree > 0],) if abs(degree) > _SAID_FROM else ()
        return (self.value(axis),)

    def is_called(self, axis: str, word: str) -> bool:
        """Whether a word for an axis is true of the object: its value, or a finer name for such a color."""
        if axis == "color" and word in FINE_NAMES:
            return word in self.words("fine") or self.color in color_words(FINE_NAMES[word])
        return word in self.words(axis)

    def degree(self, axis: str) -> float:
        """Where a pattern's width or a surface's finish stands in its range, -1..1; 0 where it has none."""
        if axis == "width":
            low, high = (math.log(s) for s in PATTERN_SCALES)
            return 0.0 if self.pattern == "plain" else 2 * (math.log(self.scale) - low) / (high - low) - 1
        return 2 * self.roughness - 1 if self.material in ROUGH_MATERIALS else 0.0

    @property
    def attributes(self) -> Attributes:
        return (self.kind, self.color, self.material, self.pattern)

    def value(self, axis: str) -> str:
        if axis not in AXES:
            raise IceError(f"unknown axis {axis!r}; the world has {', '.join(AXES)}")
        return str(getattr(self, axis))


@dataclass(frozen=True)
class Scene:
    """Objects, ground, light direction and camera (radians, world units) of one picture."""

    objects: tuple[SceneObject, ...]
    ground: str
    seed: int
    light_azimuth: float = 0.8
    light_elevation: float = 0.95
    camera_elevation: float = 0.65
    camera_distance: float = 8.0


def is_held_out(attributes: Attributes) -> bool:
    """Whether a combination of kind, color, material and pattern is kept out of training."""
    digest = hashlib.sha256("|".join(attributes).encode()).digest()
    return int.from_bytes(digest[:4], "big") % 100 < HELD_OUT_PERCENT


@cache
def combinations(split: Split) -> tuple[Attributes, ...]:
    """All attribute combinations of a split, in a fixed order."""
    every = [(k, c, m, p) for k, c, m, p in product(*AXES.values())]
    if split == "any":
        return tuple(every)
    return tuple(a for a in every if is_held_out(a) == (split == "held_out"))


def sample_scene(seed: int, split: Split = "seen", count: int | None = None, between: float = 0.0) -> Scene:
    """Draw a scene; the same arguments give the same scene.

    `count` fixes the number of objects (1 to 3); otherwise 35 % have one, 40 % two and 25 % three.
    `between` is the share of objects whose color lies between two names (`color` is the nearer one).
    """
    if count is not None and not 1 <= count <= MAX_OBJECTS:
        raise IceError(f"a scene holds 1 to {MAX_OBJECTS} objects, not {count}")
    rng = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=rng).item()

    def choice(n: int) -> int:
        return int(torch.randint(n, (), generator=rng).item())

    drawn = uniform(0, 1)
    count = count or (1 if drawn < 0.35 else 2 if drawn < 0.75 else 3)
    pool = combinations(split)
    attributes = [pool[choice(len(pool))] for _ in range(count)]
    if count > 1 and uniform(0, 1) < 0.12:
        # Two of one kind in different colours: what keeps a model from binding colour to kind.
        same_kind = [a for a in pool if a[0] == attributes[0][0] and a[1] != attributes[0][1]]
        if same_kind:
            attributes[1] = same_kind[choice(len(same_kind))]
    places = _place(count, uniform)
    objects = tuple(_object(a, place, uniform, between) for a, place in zip(attributes, places, strict=True))
    return Scene(
        objects=objects,
        ground=GROUNDS[choice(len(GROUNDS))],
        seed=seed,
        light_azimuth=uniform(0.3, 1.3),
        light_elevation=uniform(0.85, 1.1),
        camera_elevation=uniform(0.58, 0.72),
        camera_distance=uniform(7.7, 8.3),
    )


def _object(
    attributes: Attributes, place: tuple[float, float, float], uniform: Uniform, between: float
) -> SceneObject:
    """An object of these values, with the particulars that no word says."""
    x, z, size = place
    color = draw_color(attributes[1], uniform, between=uniform(0, 1) < between)
    second, second_rgb = draw_second(color, uniform)
    low, high = (math.log(s) for s in PATTERN_SCALES)
    return SceneObject(
        attributes[0],
        color_words(color)[0],
        attributes[2],
        attributes[3],
        x=x,
        z=z,
        size=size,
        rotation=uniform(-math.pi, math.pi),
        rgb=color,
        second=second,
        second_rgb=second_rgb,
        scale=math.exp(uniform(low, high)),
        roughness=uniform(0, 1),
    )


def _place(count: int, uniform: Uniform) -> list[tuple[float, float, float]]:
    """Positions and sizes without interpenetration; rejection sampling, restarted when it gets stuck."""
    low, high = {1: (0.95, 1.25), 2: (0.82, 1.02), 3: (0.72, 0.88)}[count]
    while True:
        placed: list[tuple[float, float, float]] = []
        for _ in range(60):
            size = uniform(low, high)
            reach = 1.75 - size if count > 1 else 0.45
            x, z = uniform(-reach, reach) * 1.15, uniform(-reach, reach)
            if all(math.hypot(x - a, z - b) > 1.02 * (size + s) for a, b, s in placed):
                placed.append((x, z, size))
                if len(placed) == count:
                    return placed
