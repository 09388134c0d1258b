"""All settings of an extraction as one value that survives a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ice_core.attributes.reading import ReadingConfig
from ice_core.errors import IceError
from ice_core.localization.config import LocalizationConfig
from ice_core.model.sampling import SamplingConfig
from ice_core.run.defaults import OTHERS
from ice_core.training.config import TrainingConfig
from ice_core.training.plain import restored
from ice_core.training.refinement import RefinementConfig


@dataclass(frozen=True)
class ShowingConfig:
    """others: plain names of things that the model can draw, which properties are shown on where a picture
    has no second object; values: words by axis, against which it is judged how a property came out (for an
    axis that is not there, the words that its reading weighed)."""

    others: tuple[str, ...] = OTHERS
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.others or not all(word.strip() for word in self.others):
            raise IceError(f"things to show properties on are {self.others}; give words such as ball, cup")


@dataclass(frozen=True)
class ExtractionSettings:
    """One configuration per stage; `training.seed` seeds all of them. Without steps of refinement, which
    is the default, no weight of the model is refined. sampling: of the sheet's many pictures, in 20 steps,
    which `benchmarks/world_quality.py --steps 20` does not tell from 30."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    localization: LocalizationConfig = field(default_factory=LocalizationConfig)
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(steps=20))
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    showing: ShowingConfig = field(default_factory=ShowingConfig)
    reading: ReadingConfig = field(default_factory=ReadingConfig)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ExtractionSettings:
        """The inverse of dataclasses.asdict, also after JSON; IceError for settings of another version."""
        try:
            return restored(cls, plain)
        except IceError:
            raise
        except (TypeError, ValueError) as error:
            raise IceError(f"the run's settings are of another version ({error}); extract again") from error
