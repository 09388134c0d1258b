"""The beginning of a run: which objects the picture holds."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from ice_core.concepts import ConceptSet
from ice_core.errors import IceError
from ice_core.figures.rounds import considered
from ice_core.files.images import resize, working_size
from ice_core.localization.given import concepts_from_labels, concepts_from_masks
from ice_core.localization.loop import LocalizationRound, localize
from ice_core.localization.naming import Retrieves
from ice_core.localization.retrieval.retriever import Retriever
from ice_core.localization.retrieval.towers import ImageTextModel
from ice_core.model.backbone import Backbone
from ice_core.run.events import Progress, RunEvent
from ice_core.run.settings import ExtractionSettings


def find(
    backbone: Backbone,
    retriever: Retrieves | None,
    image: Tensor,
    settings: ExtractionSettings,
    labels: Sequence[str] | None,
    masks: Sequence[Tensor] | None,
    towers: ImageTextModel | None = None,
) -> Generator[RunEvent, None, tuple[ConceptSet, tuple[LocalizationRound, ...]]]:
    """Stage One at the size the model works at -> objects, and the rounds in which they were found (none
    for what a user named or marked; masks without words are named by the retriever). towers: tell which of
    the labels an object is. Raises IceError when nothing is found."""
    stage, config = "finding objects", settings.localization
    size = working_size(image.shape[1], image.shape[2], backbone.native_size, backbone.multiple)
    small = resize(image, size)
    generator = torch.Generator().manual_seed(settings.training.seed)
    total = config.max_rounds
    rounds: list[LocalizationRound] = []
    yield Progress(stage, 0, total)
    if masks is not None:
        if not labels and retriever is not None:
            yield from _prepared(retriever)
        result = concepts_from_masks(small, labels or None, masks, retriever, config.refine_masks)
    elif labels:
        result = concepts_from_labels(backbone, small, labels, config, generator, towers)
    else:
        assert retriever is not None
        yield from _prepared(retriever)
        for step in localize(backbone, retriever, small, config, generator):
            result = step.result
            rounds.append(step)
            yield Progress(stage, step.index, total, f"{step.label}: {len(step.found)} found")
    if not result.concepts:
        what = f"of {', '.join(labels)} " if labels else ""
        raise IceError(f"no object {what}was found; name and mark them with --labels and --masks")
    yield Progress(stage, total, total, ", ".join(c.key for c in result.concepts))
    return result, tuple(rounds)


def _prepared(retriever: Retrieves) -> Generator[RunEvent, None, None]:
    """Have a retriever's vocabulary embedded now, where that can be told."""
    if isinstance(retriever, Retriever):
        total = len(retriever.vocabulary.words)
        for done in retriever.prepare():
            yield Progress("reading vocabulary", done, total)


def rounds_to_plain(rounds: Sequence[LocalizationRound]) -> tuple[dict[str, Any], ...]:
    """Rounds for `report.json`: word, words considered with their similarities, keys of what was found with
    finer names and their probabilities, share of the picture that is left, and for the last one why it
    ended."""
    return tuple(
        {
            "label": step.label,
            "considered": considered(step),
            "found": [concept.key for concept in step.found],
            "finer": {
                concept.key: {one.value: one.weight for one in concept.finer}
                for concept in step.found
                if concept.finer
            },
            "unexplained": step.result.unexplained,
            "ended": step.ended,
        }
        for step in rounds
    )
