"""Reading an object's properties with CLIP: which words fit it, seen alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.attributes.values import Axis, Candidate, Reader, Reading, Readings
from ice_core.concepts import Concept, ConceptSet, unit
from ice_core.errors import IceError
from ice_core.localization.retrieval.towers import ImageTextModel

View = Literal["black", "black crop", "mean", "mean crop", "picture", "picture crop"]
"""What surrounds the object (black, the mean color of its surroundings, the picture itself), and whether
it is cut out with a margin."""

MARGIN = 0.15
"""Of a crop, on every side, as a share of the object's longer side."""

ALIKE = 0.7
"""Values whose directions are this close (cosine) say about the same: crimson and red."""
NEIGHBORS, NEIGHBORLY = 7, 0.3
"""How many values at most are a value's neighbors, and the least cosine of their directions."""


@dataclass(frozen=True)
class ReadingConfig:
    """How CLIP reads. Defaults: what `benchmarks/reading.py` measures best on rendered scenes.

    views: pictures of the object, whose embeddings are averaged. templates: one "{}" each, where the
    thing goes; the directions of all are averaged. temperature: of the softmax over an axis' values, in
    units of the one that CLIP itself was trained with, so that it suits other CLIPs too (Guo et al. 2017:
    calibration by one temperature; on rendered scenes the default states truer probabilities than 1).
    candidates: how many values are kept. confidence: how sure the best value and its near synonyms
    together must be, from 0 (chance) to 1 (certainty), or nothing fits. noises: through which the diffusion
    model decides between the words that CLIP is unsure of (`second_reader.py`), two or more; 0: it is not
    asked; None: `ice_core.extract` asks the bundled model through eight, and no other.

    Raises IceError for a value that cannot work.
    """

    views: tuple[View, ...] = ("black", "black crop")
    templates: tuple[str, ...] = ("a photo of a {}", "a photo of the {}")
    temperature: float = 0.5
    candidates: int = 5
    confidence: float = 0.5
    noises: int | None = None

    def __post_init__(self) -> None:
        if not self.views or (unknown := [view for view in self.views if view not in get_args(View)]):
            wrong = repr(unknown[0]) if self.views else "missing"
            raise IceError(f"the view of an object is {wrong}; there are: {', '.join(get_args(View))}")
        for template in self.templates or ("",):
            if template.count("{}") != 1:
                raise IceError(f'the template {template!r} needs "{{}}" once, where the thing goes')
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise IceError(f"temperature is {self.temperature}: it must be above 0")
        if self.noises is not None and (self.noises < 0 or self.noises == 1):
            raise IceError(f"noises is {self.noises}: it must be 0, or 2 or more")
        check_choice(self.candidates, self.confidence)


def check_choice(candidates: int, confidence: float) -> None:
    """Raise IceError for settings of `reading_of` that cannot work."""
    if candidates < 1:
        raise IceError(f"candidates is {candidates}: it must be 1 or more")
    if not 0 <= confidence <= 1:
        raise IceError(f"confidence is {confidence}: it goes from 0 (chance) to 1 (certainty)")


@dataclass(frozen=True)
class Weighed:
    """What is known of one axis of one object. weights: probabilities [V] of the axis' values; near: [V, V],
    how close the values are to each other, from `closeness`."""

    axis: Axis
    weights: Tensor
    near: Tensor

    def reading(self, reader: Reader, config: ReadingConfig) -> Reading:
        """The best few values, and whether the best fits."""
        return reading_of(self.axis, self.weights, self.near, reader, config.candidates, config.confidence)


def read_with_clip(
    towers: ImageTextModel, concepts: ConceptSet, axes: Sequence[Axis], config: ReadingConfig | None = None
) -> Readings:
    """What CLIP alone says of every object and axis; a free axis has no candidates and does not fit.

    Raises IceError for an object without label or mask.
    """
    config = config or ReadingConfig()
    return readings_of(weigh_with_clip(towers, concepts, axes, config), axes, config)


def readings_of(
    weighed: Mapping[str, Mapping[str, Weighed]], axes: Sequence[Axis], config: ReadingConfig
) -> Readings:
    """CLIP's readings from `weigh_with_clip`, with those of free axes."""
    return {
        key: {
            axis.name: nothing(axis, "clip") if axis.free else of[axis.name].reading("clip", config)
            for axis in axes
        }
        for key, of in weighed.items()
    }


def weigh_with_clip(
    towers: ImageTextModel, concepts: ConceptSet, axes: Sequence[Axis], config: ReadingConfig
) -> dict[str, dict[str, Weighed]]:
    """How likely CLIP finds each value, by object and by axis that is not free.

    The score of a value is the cosine of the object's embedding and "a photo of a {value} {label}" minus
    "a photo of a {label}", so that only what the value adds to the label counts. Raises IceError for an
    object without label or mask.
    """
    directions: dict[tuple[str, Axis], Tensor] = {}
    weighed: dict[str, dict[str, Weighed]] = {}
    for concept in concepts.concepts:
        check_readable(concept)
        seen = towers.encode_images(views(concepts.image, concept.mask, config.views)).mean(0)
        weighed[concept.key] = {}
        for axis in (axis for axis in axes if not axis.free):
            key = (concept.label, axis)
            if key not in directions:
                directions[key] = value_directions(towers, concept.label, axis, config.templates)
            weights = probabilities(unit(seen) @ directions[key].T, towers.scale, config.temperature)
            weighed[concept.key][axis.name] = Weighed(axis, weights, closeness(directions[key]))
    return weighed


def check_readable(concept: Concept) -> None:
    """Raise IceError for an object without label or mask."""
    if not concept.label.strip():
        raise IceError(f"the object {concept.key!r} has no label: give it a word such as ball")
    if not concept.mask.any():
        raise IceError(f"the mask of {concept.key!r} is empty: mark some of the picture, or leave it out")


def probabilities(scores: Tensor, scale: float, temperature: float) -> Tensor:
    """Probabilities [V] of cosines [V], for a model that was trained with the softmax of scale x cosine."""
    return (scores * scale / temperature).softmax(-1)


def value_directions(towers: ImageTextModel, label: str, axis: Axis, templates: Sequence[str]) -> Tensor:
    """What each value adds to a label, [V, D]: unit differences, averaged over templates."""
    parts = []
    for template in templates:
        texts = [template.format(f"{value} {label}") for value in axis.values]
        embedded = towers.encode_texts([*texts, template.format(label)])
        parts.append(unit(embedded[:-1] - embedded[-1]))
    return torch.stack(parts).mean(0)


def closeness(directions: Tensor) -> Tensor:
    """Cosines [V, V] of the directions of V values [V, D] around their mean; 1 on the diagonal."""
    centred = unit(directions - directions.mean(0))
    return (centred @ centred.T).fill_diagonal_(1)


def reading_of(
    axis: Axis, weights: Tensor, near: Tensor, reader: Reader, candidates: int, confidence: float
) -> Reading:
    """The best few of probabilities [V] of an axis' values, and whether the best fits.

    near: [V, V], from `closeness`. Near synonyms take probability from each other in long dictionaries
    without making the reading less sure: what counts is theirs together, by how far it is from the share
    that they have of the values anyway to certainty (as Cohen's kappa corrects agreement for chance).
    """
    order = weights.argsort(descending=True, stable=True)
    best = order[:candidates].tolist()
    around = near[best[0]]
    group = around >= ALIKE
    together, chance = weights[group].sum().item(), group.float().mean().item()
    fits = together - chance >= confidence * (1 - chance) and chance < 1
    kept = tuple(Candidate(axis.values[i], weights[i].item()) for i in best)
    nearest = [i for i in around.argsort(descending=True, stable=True).tolist() if i != best[0]]
    neighbors = tuple(axis.values[i] for i in nearest[:NEIGHBORS] if around[i] >= NEIGHBORLY)
    return Reading(axis.name, kept, reader, fits, neighbors, axis.degrees_of(kept[0].value))


def nothing(axis: Axis, reader: Reader) -> Reading:
    """What is read of an axis that has no values to choose from."""
    return Reading(axis.name, (), reader, fits=False)


def views(image: Tensor, mask: Tensor, names: Sequence[View]) -> Tensor:
    """Pictures [N, 3, S, S] of an object of an image [3, H, W] in 0..1, mask [H, W] bool, not empty.

    S is the picture's longer side: a crop is square and is scaled to it, a whole frame is squeezed, as
    towers do.
    """
    image = image.detach().float().cpu().clamp(0, 1)
    mask = mask.cpu()
    side = max(image.shape[-2:])
    return torch.cat([_sized(_view(image, mask, name)[None], side) for name in names])


def _view(image: Tensor, mask: Tensor, name: View) -> Tensor:
    surroundings, _, crop = name.partition(" ")
    around = image[:, ~mask].mean(1) if not mask.all() else image.mean((1, 2))
    shown = image
    if surroundings != "picture":
        fill = torch.zeros(3) if surroundings == "black" else around
        shown = torch.where(mask, image, fill[:, None, None])
    if not crop:
        return shown
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    side = round(max(height, width) * (1 + 2 * MARGIN))
    top, left = top - (side - height) // 2, left - (side - width) // 2
    # What lies beyond the picture is filled as the surroundings are, else crops would be off centre.
    outside = torch.zeros(3) if surroundings == "black" else around
    square = outside[:, None, None].expand(3, side, side).clone()
    y, x = max(top, 0), max(left, 0)
    inside = shown[:, y : top + side, x : left + side]
    square[:, y - top : y - top + inside.shape[1], x - left : x - left + inside.shape[2]] = inside
    return square


def _sized(images: Tensor, side: int) -> Tensor:
    if tuple(images.shape[-2:]) == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bicubic", align_corners=False, antialias=True).clamp(
        0, 1
    )
