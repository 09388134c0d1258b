"""Settings of Stage Two, with the paper's values as defaults."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ice_core.errors import IceError
from ice_core.model.backbone import Backbone
from ice_core.model.prompts import NEUTRAL_TEMPLATES

_RESERVED = ("instance", "object")
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
class TrainingConfig:
    """What `train` does. Defaults: Cendra and Han, CVPR 2025, unless marked ours.

    axes: one plain word per intrinsic property, each a single piece to the model's tokenizer.
    steps: optimizer steps; the first half is the object level, the second the intrinsic level.
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
    steps: int = 800
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

    def __post_init__(self) -> None:
        if not self.axes:
            raise IceError("no axes: name at least one property to learn, for example color")
        for axis in self.axes:
            if not re.fullmatch(r"[\w-]+", axis):
                raise IceError(f"the axis {axis!r} is not one plain word: write for example color")
            if axis in _RESERVED:
                raise IceError(f"the axis {axis!r} is the name of another learned token: choose another word")
            if self.axes.count(axis) > 1:
                raise IceError(f"the axis {axis!r} is named twice: name each axis once")
        if self.steps < 2:
            raise IceError(f"steps is {self.steps}: training has two phases and needs 2 steps or more")
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
        """Steps of phase 1; from this step on it is phase 2."""
        return self.steps // 2

    def check_axes(self, backbone: Backbone) -> None:
        """Refuse an axis that some tokenizer of the backbone breaks up: its anchor would be a mixture."""
        for axis in self.axes:
            for encoder, rows in backbone.word_rows(axis).items():
                if len(rows) != 1:
                    raise IceError(
                        f"the axis {axis!r} is {len(rows)} pieces to the tokenizer of {encoder}: choose a "
                        "word that is a single piece, for example color, material, pattern or texture"
                    )
