"""Settings of Stage Two; what belongs to the paper's method has the paper's values as defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from ice_core.attributes.axes import check_axis_names
from ice_core.errors import IceError
from ice_core.model.backbone import Backbone
from ice_core.model.prompts import NEUTRAL_TEMPLATES

Method = Literal["words", "anchored", "paper", "inversion"]
"""How tokens come about: read off as words, learned from those words, as in the paper, by plain inversion."""
FROM_WORDS: tuple[Method, ...] = ("words", "anchored")
"""Methods whose tokens start at the words that are read of an object."""

STEPS: Mapping[Method, int] = {"words": 0, "anchored": 16, "paper": 800, "inversion": 800}
"""Optimizer steps that a method takes unless told otherwise; the bundled model needs half of the last two."""

_OWN = -1
_NOT_NEGATIVE = (
    "weight_decay",
    "noise_offset",
    "alignment_weight",
    "object_margin",
    "object_triplet_weight",
    "intrinsic_margin_scale",
    "intrinsic_triplet_weight",
    "composition_weight",
)


@dataclass(frozen=True)
class AnchoredConfig:
    """What the anchored method does; ours, see `ice_core.training.anchored`.

    batch: noisy copies of every object per step.
    earliest, latest: their timesteps, as shares of the schedule. A single word tells a shade best in little
        noise (`benchmarks/timesteps.py`); mixtures that are solved for do so in more of it as well.
    rows: embedding rows per token.
    solving: steps in which the mixtures' weights are solved for, at most half of all; each looks at every
        word that a mixture may hold. In the others residuals are learned.
    damping: of that solution, as a share of the mean curvature (`least_squares.py`).
    residual_rate: of Adam, for directions of length 1, at its first step; it falls to 0 at the last.
    keep_close: weight of a direction's squared distance from its mixture's.
    substitution: chance that a slot of the prompt holds its word instead of its token.
    off_axis: weight of the off-axis anchor, see `off_axis.py`; 0 leaves it out. off_axis_pictures: that the
        model draws for it first, per property.
    instance: learn a throw-away token for what is neither the object nor a property of it.
    beside: name the picture's other objects, by their words, beside the object.
    evaluations: noisy copies per object of the fixed set on which states are compared; 0 compares none and
        keeps the last.
    evaluate_every: steps between comparisons; patience: of them without a better state before it ends.
    budget: seconds after which it ends in any case; 0 is no limit.

    Raises IceError for a value that cannot work.
    """

    batch: int = 8
    earliest: float = 0.15
    latest: float = 0.7
    rows: int = 1
    solving: int = 8
    damping: float = 0.3
    residual_rate: float = 0.003
    keep_close: float = 0.01
    substitution: float = 0.5
    off_axis: float = 0.0
    off_axis_pictures: int = 2
    instance: bool = True
    beside: bool = True
    evaluations: int = 16
    evaluate_every: int = 8
    patience: int = 3
    budget: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (
            ("batch", 1),
            ("rows", 1),
            ("off_axis_pictures", 1),
            ("solving", 0),
            ("evaluations", 0),
            ("evaluate_every", 1),
            ("patience", 1),
        ):
            if getattr(self, name) < least:
                raise IceError(f"{name} is {getattr(self, name)}: it must be {least} or more")
        for name in ("damping", "residual_rate", "keep_close", "off_axis", "budget"):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise IceError(f"{name} is {value}: it must be 0 or more")
        if not 0 <= self.earliest < self.latest <= 1:
            raise IceError(
                f"earliest is {self.earliest}, latest {self.latest}: both are shares of the schedule, in "
                "rising order in 0..1"
            )
        if not 0 <= self.substitution <= 1:
            raise IceError(f"substitution is {self.substitution}: it must be in 0..1")


@dataclass(frozen=True)
class TrainingConfig:
    """What `train` does. Defaults of the paper's method: Cendra and Han, CVPR 2025, unless marked ours.

    axes: one plain word per intrinsic property; the paper's method needs single pieces to the tokenizer.
    steps: optimizer steps; -1 becomes the method's own number, see `STEPS`. In the paper's method the first
        half is the object level, the second the intrinsic level.
    method: see `Method`; anchored: settings of that method. What follows here down to `snapshot_every` is
        the paper's, but for seed, flip_probability and noise_offset, which all methods share.
    batch: noisy copies of the drawn object per step (they share its template).
    learning_rate, weight_decay: of AdamW. The rate is that of Stable Diffusion 1 and is scaled to the size
        of a model's own words (ours, `row_sizes`), so that one value serves every model. The decay is
        AdamW's usual one; at 5e-4 it shrinks a row that is drawn in all of 800 steps by 0.4 %, so it acts
        on rows that leave the words' scale only.
    seed: of the one generator that all randomness comes from.
    flip_probability: chance that picture and mask are mirrored.
    noise_offset: standard deviation of the noise that a whole channel shares.
    alignment_weight: of the attention alignment; 0 also turns the recording off.
    alignment_epsilon: entropy of its transport, in sides of the map.
    alignment_iterations: steps of its solver (ours, `transport.potentials`); the paper's 200 of Sinkhorn's
        come less close.
    object_margin, object_triplet_weight: phase 1's triplet on squared distances of unit features.
    intrinsic_margin_scale, intrinsic_triplet_weight: phase 2's element-wise one (useful weights: 5e-4..1).
    composition_weight: of |T(o a_1..a_K) - T(s o)|^2 in phase 2 (ours; off).
    snapshot_every: steps between `Snapshot` events.
    templates: prompts with one "{}" each.

    Raises IceError for a value that cannot work.
    """

    axes: tuple[str, ...] = ("color", "material", "pattern")
    steps: int = _OWN
    batch: int = 1
    learning_rate: float = 5e-4
    weight_decay: float = 1e-2
    seed: int = 0
    flip_probability: float = 0.5
    noise_offset: float = 0.1
    alignment_weight: float = 1e-5
    alignment_epsilon: float = 1e-3
    alignment_iterations: int = 16
    object_margin: float = 0.05
    object_triplet_weight: float = 1.0
    intrinsic_margin_scale: float = 0.7
    intrinsic_triplet_weight: float = 0.05
    composition_weight: float = 0.0
    snapshot_every: int = 100
    templates: tuple[str, ...] = NEUTRAL_TEMPLATES
    method: Method = "anchored"
    anchored: AnchoredConfig = field(default_factory=AnchoredConfig)

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise IceError(f"there is no method {self.method!r}: choose {', '.join(get_args(Method))}")
        if self.steps == _OWN:
            object.__setattr__(self, "steps", STEPS[self.method])
        if self.method == "words" and self.steps:
            raise IceError(f"steps is {self.steps}, but the method words trains nothing: leave steps out")
        if not self.axes:
            raise IceError("no axes: name at least one property to learn, for example color")
        check_axis_names(self.axes)
        least = 2 if self.method in ("anchored", "paper") else STEPS[self.method] and 1
        if self.steps < least:
            raise IceError(f"steps is {self.steps}: the method {self.method} needs {least} steps or more")
        for name, least in (("batch", 1), ("snapshot_every", 1), ("alignment_iterations", 1)):
            if getattr(self, name) < least:
                raise IceError(f"{name} is {getattr(self, name)}: it must be {least} or more")
        for name in ("learning_rate", "alignment_epsilon"):
            if not (math.isfinite(value := getattr(self, name)) and value > 0):
                raise IceError(f"{name} is {value}: it must be above 0")
        for name in _NOT_NEGATIVE:
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise IceError(f"{name} is {value}: it must be 0 or more")
        if not 0 <= self.flip_probability <= 1:
            raise IceError(f"flip_probability is {self.flip_probability}: it must be in 0..1")
        if not self.templates:
            raise IceError('no templates: give at least one, for example "a photo of a {}"')
        for template in self.templates:
            if template.count("{}") != 1:
                raise IceError(f'the template {template!r} needs "{{}}" once, where the learned tokens go')

    @property
    def switch(self) -> int:
        """Steps of phase 1; from this step on it is phase 2. A method of one phase has no second."""
        if self.method == "anchored":
            return min(self.anchored.solving, self.steps // 2)
        return self.steps // 2 if self.method == "paper" else self.steps

    def copies(self, objects: int) -> int:
        """Noisy copies that the denoiser keeps at once for the gradients of a step, where memory allows."""
        if self.method == "words":
            return 0
        return objects * self.anchored.batch if self.method == "anchored" else self.batch

    def check_axes(self, backbone: Backbone) -> None:
        """Refuse, for the paper's method, an axis that some tokenizer of the backbone breaks up: its anchor
        would be a mixture."""
        if self.method != "paper":
            return
        for axis in self.axes:
            for encoder, rows in backbone.word_rows(axis).items():
                if len(rows) != 1:
                    raise IceError(
                        f"the axis {axis!r} is {len(rows)} pieces to the tokenizer of {encoder}: choose a "
                        "word that is a single piece, for example color, material, pattern or texture"
                    )
