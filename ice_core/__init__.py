"""Take one picture apart into reusable visual concepts, and draw with them.

>>> import ice_core
>>> model = ice_core.load_model()
>>> scene = ice_core.extract_concepts(model, "scene.png", "scene", labels=["ball"])
>>> ice_core.compose(model, "a photo of a {ball}", scene.learned)[0].save("ball.png")

`extract` is the same as a stream of events, which are in `ice_core.run.events`. Names are looked up when they
are used: `import ice_core` alone loads neither torch nor a model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ice_core.errors import IceError

if TYPE_CHECKING:
    from ice_core.api import (
        Extraction,
        compose,
        extract,
        extract_concepts,
        load_model,
        load_retriever,
        resume,
    )
    from ice_core.attributes.reading import ReadingConfig
    from ice_core.concepts import Concept, ConceptSet, LearnedConcept, LearnedConcepts
    from ice_core.files.concept_set import SavedConcepts, load_concept_set, save_concept_set
    from ice_core.files.embeddings import load_concepts, save_concepts
    from ice_core.localization.config import LocalizationConfig
    from ice_core.localization.segmentation import ObjectsConfig, SegmentationConfig
    from ice_core.model.sampling import SamplingConfig
    from ice_core.run.events import Progress
    from ice_core.run.settings import ExtractionSettings
    from ice_core.training import RefinementConfig, TrainingConfig

__all__ = [
    "Concept",
    "ConceptSet",
    "Extraction",
    "ExtractionSettings",
    "IceError",
    "LearnedConcept",
    "LearnedConcepts",
    "LocalizationConfig",
    "ObjectsConfig",
    "Progress",
    "ReadingConfig",
    "RefinementConfig",
    "SamplingConfig",
    "SavedConcepts",
    "SegmentationConfig",
    "TrainingConfig",
    "compose",
    "extract",
    "extract_concepts",
    "load_concept_set",
    "load_concepts",
    "load_model",
    "load_retriever",
    "resume",
    "save_concept_set",
    "save_concepts",
]

_HOMES = {
    "Concept": "concepts",
    "ConceptSet": "concepts",
    "ExtractionSettings": "run.settings",
    "LearnedConcept": "concepts",
    "LearnedConcepts": "concepts",
    "LocalizationConfig": "localization.config",
    "ObjectsConfig": "localization.segmentation",
    "Progress": "run.events",
    "ReadingConfig": "attributes.reading",
    "RefinementConfig": "training",
    "SamplingConfig": "model.sampling",
    "SavedConcepts": "files.concept_set",
    "SegmentationConfig": "localization.segmentation",
    "TrainingConfig": "training",
    "load_concept_set": "files.concept_set",
    "load_concepts": "files.embeddings",
    "save_concept_set": "files.concept_set",
    "save_concepts": "files.embeddings",
}
"""Where a public name is defined, if not in api.py."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
