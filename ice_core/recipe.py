"""What a worker of `ice batch` opens and does, as a value that travels to other machines."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from ice_core.api import load_model, load_retriever, reading_towers
from ice_core.attributes.values import Axis
from ice_core.errors import IceError
from ice_core.files.concept_set import save_concept_set
from ice_core.files.images import image_from_bytes
from ice_core.library.batch import Worker
from ice_core.library.learning import learned_from_picture
from ice_core.localization.retrieval.dictionary import Vocabulary
from ice_core.run.settings import ExtractionSettings
from ice_core.tensor_files.digest import file_sha256


@dataclass(frozen=True)
class Recipe:
    """checkpoint: a file, None for the bundled model; clip, vocabulary: as in `load_retriever`; labels: of
    the objects to look for; date: ISO 8601, of the batch; threads: of a worker, 0 for as many as there are.
    """

    checkpoint: Path | None
    clip: str | None
    vocabulary: Vocabulary | None
    device: str
    dtype: str
    settings: ExtractionSettings
    axes: tuple[Axis, ...]
    labels: tuple[str, ...]
    date: str
    threads: int = 0

    def text(self) -> str:
        """All that a result depends on: where, when and on how many threads it is made does not count."""
        plain = {
            "checkpoint": _sha256(self.checkpoint) if self.checkpoint else "bundled",
            "clip": self.clip or "",
            "vocabulary": asdict(self.vocabulary) if self.vocabulary else "",
            "dtype": self.dtype,
            "settings": asdict(self.settings),
            "axes": [asdict(axis) for axis in self.axes],
            "labels": self.labels,
        }
        return json.dumps(plain, sort_keys=True)

    def open(self) -> Worker:
        """Load the models -> what makes a concept set of a picture. Raises IceError for what cannot be
        opened."""
        import torch

        if self.threads:
            torch.set_num_threads(self.threads)
        backbone = load_model(self.checkpoint, self.device, self.dtype)
        retriever = None if self.labels else load_retriever(backbone, self.clip, self.vocabulary)
        towers = reading_towers(backbone)

        def worker(name: str, picture: bytes) -> bytes:
            image = image_from_bytes(picture, f"the picture {name}")
            saved = learned_from_picture(
                backbone, retriever, towers, image, name, self.settings, self.axes, self.labels, self.date
            )
            with tempfile.TemporaryDirectory() as scratch:
                return save_concept_set(saved, Path(scratch) / "concepts.safetensors").read_bytes()

        return worker


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise IceError(f"cannot read {path}: {error.strerror}; give a checkpoint that can be read") from error
