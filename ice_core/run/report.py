"""What came out of an extraction, for programs: `report.json`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ice_core.files.paths import write_json

if TYPE_CHECKING:
    from ice_core.concepts import Reading
    from ice_core.evaluation.quality import Quality

OUTPUTS = (
    "run.json", "report.json", "history.json", "concepts.safetensors", "found.safetensors",
    "training.safetensors", "refinement.safetensors", "lora.safetensors",
    "sheet.png", "input.png", "rounds.png", "overlay.png", "losses.png", "masks", "embeddings", "rows",
)  # fmt: skip
"""Everything an extraction writes into its folder."""


@dataclass(frozen=True)
class ConceptReport:
    """One object. box: left, top, right, bottom and area: count, both in pixels of the input, right and
    bottom exclusive; mask, row, embeddings (by token name): files, relative to the report; quality: by axis,
    how its properties came out on other objects, where a CLIP could judge; readings: by axis, what was read
    of the object."""

    key: str
    label: str
    score: float
    box: tuple[int, int, int, int]
    area: int
    area_share: float
    mask: str
    row: str
    embeddings: Mapping[str, str]
    prompts: Mapping[str, str]
    quality: Mapping[str, Quality]
    readings: Mapping[str, Reading]


@dataclass(frozen=True)
class Report:
    """A finished extraction. image_size, working_size: (width, height); unexplained: share of the picture
    that neither concepts nor background cover; concept_set, lora: files, relative to the report, the latter
    where refinement ran; rounds: how the objects were found, see `rounds_to_plain`; seconds: by stage;
    peak_memory_mib: of the process."""

    version: str
    date: str
    title: str
    base_name: str
    base_fingerprint: str
    architecture: str
    seed: int
    image_size: tuple[int, int]
    working_size: tuple[int, int]
    unexplained: float
    concepts: tuple[ConceptReport, ...]
    rounds: tuple[Mapping[str, Any], ...]
    concept_set: str
    lora: str | None
    pictures: Mapping[str, str]
    seconds: Mapping[str, float]
    peak_memory_mib: float | None
    settings: Mapping[str, Any]
    source: Mapping[str, str]
    notes: tuple[str, ...]

    def write(self, path: Path) -> Path:
        return write_json(path, asdict(self))


def peak_memory_mib() -> float | None:
    """Largest resident size of this process so far; None where the system does not tell (Windows)."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return round(peak / 2**20 if sys.platform == "darwin" else peak / 2**10, 1)
