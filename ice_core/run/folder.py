"""The folder of one extraction: what lies where, and what is needed to go on after an interruption."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ice_core.concepts import Concept, ConceptSet, readings_from_plain
from ice_core.errors import IceError
from ice_core.files.paths import atomic_write, write_json
from ice_core.tensor_files.safetensors_file import TensorFile, read_tensors, tensor_bytes
from ice_core.training.plain import checked, restored
from ice_core.training.refinement_state import RefinementState
from ice_core.training.state import TrainingState

RUN_FILE = "run.json"
_FOUND = "found.safetensors"
_FOLDERS = ("embeddings", "masks", "rows", "previews")
"""Below a run's folder, what it writes into."""
_DAMAGE = (OSError, KeyError, TypeError, ValueError, RecursionError)


@dataclass(frozen=True)
class RunStart:
    """What a run was started with. settings, readings, rounds: as plain data; source: where picture and
    base model come from, for the command line; date: ISO 8601."""

    title: str
    date: str
    version: str
    base_name: str
    base_fingerprint: str
    settings: Mapping[str, Any]
    source: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    readings: Mapping[str, Any] = field(default_factory=dict)
    rounds: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class History:
    """Losses of each step so far, by name, and seconds spent per stage."""

    losses: tuple[Mapping[str, float], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    def columns(self, without: Sequence[str] = ()) -> dict[str, list[float]]:
        """Losses by name, in order of appearance; NaN where a step had none of that name."""
        names = dict.fromkeys(name for step in self.losses for name in step if name not in without)
        return {name: [step.get(name, float("nan")) for step in self.losses] for name in names}


@dataclass(frozen=True)
class RunFolder:
    """Names of the files of a run, and the reading and writing of those that it goes on from."""

    path: Path

    @property
    def embeddings(self) -> Path:
        return self.path / "embeddings"

    @property
    def lora(self) -> Path:
        return self.path / "lora.safetensors"

    @property
    def picture(self) -> Path:
        return self.path / "input.png"

    @property
    def rounds(self) -> Path:
        return self.path / "rounds.png"

    @property
    def concept_set(self) -> Path:
        return self.path / "concepts.safetensors"

    @property
    def started(self) -> bool:
        """Whether there is something to go on from."""
        return (self.path / RUN_FILE).exists()

    def check_free(self) -> None:
        """Raise IceError when a run has begun here, whose result another one would overwrite, and where
        `check_own` does."""
        self.check_own()
        if self.started:
            raise IceError(f"{self.path} holds a run already; resume it, or choose another folder")

    def check_own(self) -> None:
        """Raise IceError when something below the folder is a link, through which it would be written
        elsewhere."""
        for path in (self.path / name for name in _FOLDERS):
            if path.is_symlink():
                raise IceError(f"{path} is a link, and files would be written elsewhere; remove the link")

    def save_start(self, start: RunStart, concepts: ConceptSet) -> None:
        """Write what was found, then `run.json`, whose presence means that the run can go on.

        Masks are kept at working size, as packed bytes, because PNG masks at the picture's size do not
        always lead back to the same pixels.
        """
        image = concepts.image.float().cpu().contiguous()
        tensors = {"background": concepts.background.byte(), "image": image}
        tensors |= {f"mask/{c.key}": c.mask.byte() for c in concepts.concepts}
        found = [{"key": c.key, "label": c.label, "score": c.score} for c in concepts.concepts]
        atomic_write(self.path / _FOUND, tensor_bytes(tensors, {"ice.concepts": json.dumps(found)}))
        write_json(self.path / RUN_FILE, asdict(start))

    def load_start(self) -> tuple[RunStart, ConceptSet]:
        """What `save_start` wrote. Raises IceError when there is no run or it is damaged."""
        if not self.started:
            raise IceError(f"there is no run to resume in {self.path}; give the folder of an extraction")
        self.check_own()
        try:
            start = restored(RunStart, json.loads((self.path / RUN_FILE).read_text(encoding="utf-8")))
            readings_from_plain(start.readings)
            concepts = _concepts(read_tensors(self.path / _FOUND))
        except (*_DAMAGE, AttributeError) as error:
            raise IceError(f"the run in {self.path} cannot be resumed: {error}; extract again") from error
        return start, concepts

    def save_progress(self, state: TrainingState | RefinementState, history: History) -> None:
        """Write where training stands; a crash in between leaves a history that is merely too long."""
        self.save_history(history)
        refining = isinstance(state, RefinementState)
        name = "refinement.safetensors" if refining else "training.safetensors"
        atomic_write(self.path / name, state.to_bytes())

    def save_history(self, history: History) -> None:
        atomic_write(self.path / "history.json", json.dumps(asdict(history)) + "\n")

    def load_progress(self) -> tuple[TrainingState | None, RefinementState | None, History]:
        """States and history of the last snapshot; None and an empty history when there was none."""
        history_file, state_file = self.path / "history.json", self.path / "training.safetensors"
        refined_file = self.path / "refinement.safetensors"
        history = History()
        if history_file.exists():
            try:
                history = restored(History, json.loads(history_file.read_text(encoding="utf-8")))
            except _DAMAGE as error:
                raise IceError(f"{history_file} is damaged: {error}; extract again") from error
        if not state_file.exists():
            return None, None, History((), history.seconds)
        state = TrainingState.load(state_file)
        refined = RefinementState.load(refined_file) if refined_file.exists() else None
        steps = state.step + (refined.step if refined else 0)
        return state, refined, History(history.losses[:steps], history.seconds)


def _concepts(file: TensorFile) -> ConceptSet:
    """What a run found. Raises KeyError, TypeError or ValueError for damage."""
    image, background = file.tensors["image"], file.tensors["background"].bool()
    height, width = image.shape[-2:] if image.ndim == 3 else (0, 0)
    if image.shape[0] != 3 or not image.is_floating_point() or not image.isfinite().all():
        raise ValueError(f"the picture has shape {tuple(image.shape)}, or values that are not numbers")
    found = file.entry("ice.concepts", list, [])
    concepts = tuple(checked(Concept(mask=file.tensors[f"mask/{c['key']}"].bool(), **c)) for c in found)
    if not concepts:
        raise ValueError("it found nothing")
    for mask in (background, *(concept.mask for concept in concepts)):
        if tuple(mask.shape) != (height, width):
            raise ValueError(f"a mask of shape {tuple(mask.shape)} for {width} x {height} pixels")
    return ConceptSet(image.float(), concepts, background)
