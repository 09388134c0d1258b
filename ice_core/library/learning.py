"""One picture into a concept set, as the workers of a batch do it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from ice_core.attributes.values import Axis
from ice_core.concepts import ConceptSet
from ice_core.files.concept_set import SavedConcepts
from ice_core.files.images import jpeg_bytes
from ice_core.files.names import printable
from ice_core.localization.retrieval.retriever import Retriever
from ice_core.localization.retrieval.towers import ImageTextModel
from ice_core.model.backbone import Backbone
from ice_core.run import pipeline
from ice_core.run.events import Found, Trained
from ice_core.run.settings import ExtractionSettings


def learned_from_picture(
    backbone: Backbone,
    retriever: Retriever | None,
    towers: ImageTextModel | None,
    image: Tensor,
    title: str,
    settings: ExtractionSettings,
    axes: Sequence[Axis],
    labels: Sequence[str],
    date: str,
) -> SavedConcepts:
    """Find, read and learn as `ice extract` does, without drawing what was learned.

    image: [3, H, W] in 0..1. Raises IceError for what cannot be extracted.
    """
    found: ConceptSet | None = None
    with tempfile.TemporaryDirectory() as scratch:
        events = pipeline.extract(
            backbone, retriever, image, Path(scratch) / "run", settings, labels or None, title=title,
            axes=axes, towers=towers,
        )  # fmt: skip
        with closing(events):
            for event in events:
                if isinstance(event, Found):
                    found = event.concepts
                elif isinstance(event, Trained):
                    assert found is not None
                    return SavedConcepts(
                        event.learned, found.concepts, found.background, asdict(settings), printable(title),
                        date, picture=jpeg_bytes(found.image),
                    )  # fmt: skip
    raise AssertionError("an extraction ended without a result")
