"""Where CLIP is unsure, the diffusion model decides between the words that it finds likely.

CLIP tells a red ball from a blue one, and is easily wrong where one name of a color passes into the next.
The diffusion model knows shades better, in little noise (`benchmarks/timesteps.py`), and is slow. So it is
asked about few words only: those that CLIP finds likely, of axes where the likeliest is not nearly certain.
By Bayes' rule the two are multiplied: CLIP's probability, and how well the object is denoised by a prompt
with the word (Li et al., arXiv 2303.16203), the object's other words and the other objects beside it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ice_core.attributes.denoising_reader import ModelReadingConfig, errors, trials_of
from ice_core.attributes.reading import ReadingConfig, Weighed
from ice_core.attributes.values import Axis, Reading, Readings
from ice_core.concepts import Concept, ConceptSet, as_people_write
from ice_core.model.backbone import Backbone, Prompt
from ice_core.model.prompts import PRIOR_TEMPLATE
from ice_core.model.room import PIECES, pieces, with_room

SURE = 0.95
"""A likeliest word that CLIP finds so probable stands."""
TRIED = 6
"""How many words of an axis are tried, the likeliest first."""
LEAST_WEIGHT = 0.02
"""Added to CLIP's probabilities, which state some true words as impossible."""
EARLIEST, LATEST = 0.1, 0.45
"""Timesteps, as shares of the schedule: in more noise the error is mostly about where the object is."""
SHARPNESS = 60.0
"""How many times less likely (as a logarithm) a word is of which the error is twice the least."""
_BATCH = 8


@torch.no_grad()
def reconsider(
    backbone: Backbone,
    concepts: ConceptSet,
    weighed: Mapping[str, Mapping[str, Weighed]],
    readings: Readings,
    config: ReadingConfig,
    generator: torch.Generator,
) -> Generator[tuple[int, int], None, Readings]:
    """Readings in which the diffusion model has decided what CLIP was unsure of; on the way, how many of how
    many properties it has decided.

    weighed: CLIP's probabilities, by object and axis; readings: what holds so far. Where CLIP says that
    nothing fits, since its probability is spread over several words, one fits if both together are sure
    enough of it. What a user said stays, and counts as known in the prompts; CLIP's word stays where errors
    are not finite, or fewer than two words fit into a prompt. generator: on the CPU; every word is tried on
    the same noises.
    """
    unsure = {
        (concept.key, name): concept
        for concept in concepts.concepts
        for name, one in weighed[concept.key].items()
        if readings[concept.key][name].reader == "clip" and float(one.weights.max()) < SURE
    }
    if not unsure or not config.noises:
        return readings
    noises = ModelReadingConfig(config.noises, 2, earliest=EARLIEST, latest=LATEST)
    trials, covered = trials_of(backbone, concepts, noises, generator)
    decided = {key: dict(of) for key, of in readings.items()}
    for n, ((key, name), concept) in enumerate(unsure.items()):
        yield n, len(unsure)
        one = weighed[key][name]
        likely = one.weights.argsort(descending=True, stable=True)[:TRIED].tolist()
        prompts = {
            i: prompt
            for i in likely
            if (prompt := _prompt(backbone, concepts, concept, readings, one.axis, one.axis.values[i]))
        }
        if len(prompts) < 2:
            continue
        text = backbone.encode_prompts(list(prompts.values()))
        found = errors(backbone, trials, covered[key], text, _BATCH).mean(1)
        if found.isfinite().all():
            new = replace(one, weights=together(one.weights, torch.tensor(list(prompts)), found))
            reading = new.reading("both", config)
            decided[key][name] = replace(reading, fits=reading.fits or readings[key][name].fits)
    return decided


def together(weights: Tensor, tried: Tensor, found: Tensor) -> Tensor:
    """CLIP's probabilities [V] with those of the words tried [T] shared out anew by their errors [T]."""
    known = (weights[tried] + LEAST_WEIGHT).log() - SHARPNESS * (found / found.min().clamp(min=1e-12) - 1)
    result = weights.clone()
    result[tried] = weights[tried].sum() * known.softmax(0)
    # Sums of probabilities round to more than 1.
    return result.clamp(max=1)


def _prompt(
    backbone: Backbone, concepts: ConceptSet, concept: Concept, readings: Readings, axis: Axis, value: str
) -> Prompt | None:
    """The object with this value and its other words, and the other objects beside it, as far as the encoders
    have room; None where they have none for the value."""
    own = dict(_words(readings[concept.key])) | {axis.name: value}
    room = PIECES - pieces(backbone, PRIOR_TEMPLATE.replace("{}", ""))
    for axes in (as_people_write(tuple(own)), (axis.name,)):
        whole = [*(own[name] for name in axes), concept.label]
        left = room - sum(pieces(backbone, word) for word in whole)
        if left >= 0:
            break
    else:
        return None
    others = (
        ["and a", *(word for _, word in _words(readings[other.key])), other.label]
        for other in concepts.concepts
        if other.key != concept.key
    )
    return Prompt((PRIOR_TEMPLATE.format(" ".join([*whole, *with_room(backbone, left, others)])),))


def _words(readings: Mapping[str, Reading]) -> Iterator[tuple[str, str]]:
    """Axes and what was read of them, as people write them before a noun."""
    for name in as_people_write(tuple(readings)):
        if (value := readings[name].value) is not None:
            yield name, value
