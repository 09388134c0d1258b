"""What is drawn of each object: prompts that show what was learned, and that it can be taken elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ice_core.composition import recomposed, showcase_prompts, written
from ice_core.concepts import LearnedConcept, as_people_write
from ice_core.model.backbone import Prompt

COMPOSED = 3
"""Noises of each composition."""
_PLAIN_BYTES = 32
"""A label that is longer in UTF-8 is no plain word, and may not fit into a prompt beside a token."""


@dataclass(frozen=True)
class Shot:
    """A picture to draw. noise: shots of one number start from the same noise."""

    prompt: Prompt
    noise: int

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from the others of its object; equal shots need to be drawn once."""
        return written(self.prompt), self.noise


@dataclass(frozen=True)
class TransferShots:
    """A property on another object: with the token in some noises, and without it in the first of them."""

    axis: str
    other: str
    withs: tuple[Shot, ...]
    without: Shot


@dataclass(frozen=True)
class CompositionShots:
    """All properties of an object on a thing: `neighbour`, another learned object, or a plain word."""

    axes: tuple[str, ...]
    thing: str
    neighbour: LearnedConcept | None
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class ConceptShots:
    """All that is drawn of one object; `showcase` by caption."""

    showcase: dict[str, Shot]
    transfers: tuple[TransferShots, ...]
    compositions: tuple[CompositionShots, ...]

    @property
    def every(self) -> tuple[Shot, ...]:
        """Each picture once, in order."""
        shots = list(self.showcase.values())
        for transfer in self.transfers:
            shots += [*transfer.withs, transfer.without]
        for composition in self.compositions:
            shots += composition.shots
        return tuple({shot.key: shot for shot in shots}.values())


def plan(
    concept: LearnedConcept, every: Sequence[LearnedConcept], words: Sequence[str], noises: int = 1
) -> ConceptShots:
    """What to draw of one object of a picture.

    every: all objects of the picture, in order; words: plain names of other things, for objects that have
    no neighbour of another kind; noises: pictures of each property on another object.

    Each object lends its properties to the next one, the last to the first, so that two objects are put
    together in both directions; a lone object lends them to two plain words.
    """
    others = _others(concept, every, words)
    transfers = []
    for i, axis in enumerate(as_people_write(tuple(concept.intrinsics))):
        other = others[i % len(others)]
        prompt = Prompt(("a photo of a", concept.intrinsics[axis], other))
        withs = tuple(Shot(prompt, noise) for noise in range(noises))
        transfers.append(TransferShots(axis, other, withs, Shot(Prompt((f"a photo of a {other}",)), 0)))
    # Properties start from one noise, so that what differs between them is the property.
    prompts = enumerate(showcase_prompts(concept))
    showcase = {caption: Shot(prompt, min(i, 2)) for i, (caption, prompt) in prompts}
    return ConceptShots(showcase, tuple(transfers), tuple(_compositions(concept, every, others)))


def _others(
    concept: LearnedConcept, every: Sequence[LearnedConcept], words: Sequence[str]
) -> tuple[str, ...]:
    """What else the object's properties may be shown on: neighbours of another kind, else plain words."""
    labels = dict.fromkeys(c.label for c in every if c.label != concept.label)
    near = tuple(label for label in labels if len(label.encode()) <= _PLAIN_BYTES)
    return near or tuple(word for word in words if word != concept.label) or tuple(words)


def _compositions(
    concept: LearnedConcept, every: Sequence[LearnedConcept], others: Sequence[str]
) -> list[CompositionShots]:
    axes = as_people_write(tuple(concept.intrinsics))
    if not axes:
        return []
    things: list[tuple[str, LearnedConcept | None]] = [(word, None) for word in others[:2]]
    if len(every) > 1:
        at = next(i for i, c in enumerate(every) if c.key == concept.key)
        neighbour = every[(at + 1) % len(every)]
        things = [(neighbour.key, neighbour)]
    return [
        CompositionShots(
            axes,
            name,
            neighbour,
            tuple(
                Shot(recomposed(concept, neighbour.object if neighbour else name), noise)
                for noise in range(COMPOSED)
            ),
        )
        for name, neighbour in things
    ]
