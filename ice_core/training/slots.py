"""The places in an object's prompt, and what each token of the anchored method starts from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ice_core.concepts import Reading, Readings, as_people_write
from ice_core.model.backbone import Backbone
from ice_core.model.room import PIECES, pieces, with_room
from ice_core.training.config import TrainingConfig
from ice_core.training.mixture import Mixture, mixture_of, spans
from ice_core.training.state import learnable_axes

_THROW_AWAY_START = "the"


@dataclass(frozen=True)
class Slot:
    """A place in an object's prompt. word: what may stand there instead; None: nothing does."""

    mixture: Mixture
    word: str | None


def slots_of(
    backbone: Backbone, key: str, label: str, config: TrainingConfig, readings: Readings
) -> tuple[Slot, ...]:
    """Throw-away token, properties in the order in which people write them, object."""
    of = readings.get(key, {})
    axes = as_people_write(learnable_axes(config, of))
    words = {axis: _mixed(of[axis]) if axis in of else [] for axis in axes}
    likely = {axis: [c.value for c in of[axis].candidates] if axis in of else [] for axis in axes}
    degrees = {axis: of[axis].degrees if words[axis] else () for axis in axes}
    groups = {
        axis: list(dict.fromkeys([*words[axis], *likely[axis], *(w for pair in degrees[axis] for w in pair)]))
        for axis in axes
    }
    every = spans(backbone, list(groups.values()))
    slots = []
    if config.anchored.instance:
        start = mixture_of(backbone, f"{key}.instance", [_THROW_AWAY_START], [1.0], every)
        slots.append(Slot(start, None))
    rows = config.anchored.rows
    for axis in axes:
        others = spans(backbone, [groups[other] for other in axes if other != axis])
        said = words[axis] or [axis]
        weights = {c.value: c.weight for c in of[axis].candidates} if words[axis] else {axis: 1.0}
        shares = [weights.get(word, 0.0) for word in said]
        mixture = mixture_of(backbone, f"{key}.{axis}", said, shares, others, rows, degrees[axis])
        slots.append(Slot(mixture, said[0] if words[axis] else None))
    slots.append(Slot(mixture_of(backbone, f"{key}.object", [label], [1.0], every, rows), label))
    return tuple(slots)


def words_beside(
    backbone: Backbone, key: str, slots: Mapping[str, Sequence[Slot]], templates: Iterable[str]
) -> list[str]:
    """What an object's prompt says of the others: their words, in this order, while there is room for them
    beside the object's own tokens in the longest template."""
    if key not in slots:
        return []
    template = max(pieces(backbone, template.replace("{}", "")) for template in templates)
    room = PIECES - template - sum(slot.mixture.rows for slot in slots[key])
    others = (of for other, of in slots.items() if other != key)
    named = (["and a", *(slot.word for slot in of if slot.word is not None)] for of in others)
    return with_room(backbone, room, named)


def _mixed(reading: Reading) -> list[str]:
    """The word read, and those that shade into it."""
    first = [reading.value] if reading.value is not None else []
    return [*first, *(word for word in reading.neighbors if word not in first)] if first else []
