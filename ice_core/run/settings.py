"""All settings of an extraction as one value that survives a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any, get_type_hints

from ice_core.errors import IceError
from ice_core.localization.loop import LocalizationConfig
from ice_core.model.sampling import SamplingConfig
from ice_core.training.config import TrainingConfig
from ice_core.training.refinement import RefinementConfig


@dataclass(frozen=True)
class ExtractionSettings:
    """One configuration per stage; `training.seed` seeds all of them. Without steps of refinement, which
    is the default, no weight of the model is refined."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    localization: LocalizationConfig = field(default_factory=LocalizationConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ExtractionSettings:
        """The inverse of dataclasses.asdict, also after JSON; IceError for settings of another version."""
        try:
            settings = _restore(cls, plain)
        except (TypeError, KeyError) as error:
            raise IceError(f"the run's settings are of another version ({error}); extract again") from error
        assert isinstance(settings, cls)
        return settings


def _restore(kind: Any, plain: Mapping[str, Any]) -> Any:
    hints = get_type_hints(kind)
    values = {
        name: _restore(hints[name], value) if is_dataclass(hints[name])
        else tuple(value) if isinstance(value, list)
        else value
        for name, value in plain.items()
    }  # fmt: skip
    return kind(**values)
