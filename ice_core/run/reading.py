"""What the objects of a picture are like, read by whatever can, as part of a run."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch

from ice_core.attributes.denoising_reader import read_with_model
from ice_core.attributes.overruling import check_overruled, overrule
from ice_core.attributes.reading import readings_of, weigh_with_clip
from ice_core.attributes.second_reader import reconsider
from ice_core.attributes.values import Axis
from ice_core.concepts import ConceptSet, Readings
from ice_core.localization.retrieval.towers import ImageTextModel
from ice_core.model.backbone import Backbone
from ice_core.run.events import Progress, RunEvent
from ice_core.run.settings import ExtractionSettings
from ice_core.training.config import FROM_WORDS

READING = "reading properties"


@dataclass(frozen=True)
class Question:
    """axes: what is asked of every object; overruled: what is known already, "vase.material=ceramic";
    towers: what looks at the objects, None for the backbone itself. Raises IceError for something overruled
    that is no such text, names no axis or comes twice."""

    axes: tuple[Axis, ...]
    overruled: tuple[str, ...] = ()
    towers: ImageTextModel | None = None

    def __post_init__(self) -> None:
        check_overruled(self.overruled, self.axes)


def read(
    backbone: Backbone, concepts: ConceptSet, ask: Question, settings: ExtractionSettings
) -> Generator[RunEvent, None, Readings]:
    """Readings of every object: by the towers, where they are unsure with the backbone's help, or by the
    backbone alone. It is only troubled where the method starts from words.

    Raises IceError for something overruled that is not there.
    """
    yield Progress(READING, 0, 1)
    readings: Readings = {concept.key: {} for concept in concepts.concepts}
    generator = torch.Generator().manual_seed(settings.training.seed)
    from_words = settings.training.method in FROM_WORDS
    if ask.towers is not None:
        weighed = weigh_with_clip(ask.towers, concepts, ask.axes, settings.reading)
        readings = readings_of(weighed, ask.axes, settings.reading)
        readings = overrule(readings, ask.overruled, concepts, ask.axes)
        if from_words and settings.reading.noises:
            deciding = reconsider(backbone, concepts, weighed, readings, settings.reading, generator)
            readings = yield from _told(deciding)
    else:
        if from_words:
            readings = read_with_model(backbone, concepts, ask.axes, None, generator)
        readings = overrule(readings, ask.overruled, concepts, ask.axes)
    yield Progress(READING, 1, 1, "; ".join(_line(key, readings) for key in readings))
    return readings


def _told(
    deciding: Generator[tuple[int, int], None, Readings],
) -> Generator[RunEvent, None, Readings]:
    """The same, with its steps as events."""
    while True:
        try:
            done, total = next(deciding)
        except StopIteration as end:
            found: Readings = end.value
            return found
        yield Progress(READING, done, total)


def _line(key: str, readings: Readings) -> str:
    """ "ball: red, metal"."""
    return f"{key}: {', '.join(r.value for r in readings[key].values() if r.value) or 'nothing fits'}"
