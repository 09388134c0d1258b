"""One training in the host: progress and live pictures, and what is kept when it is cancelled."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from PIL import Image
from torch import Tensor

from ice_core.attributes.reading import ReadingConfig
from ice_core.concepts import ConceptSet, LearnedConcepts, Readings
from ice_core.errors import IceError
from ice_core.figures.plots import running_mean
from ice_core.figures.previews import captioned
from ice_core.figures.rows import concept_row
from ice_core.files.concept_set import SavedConcepts, save_concept_set
from ice_core.files.images import to_pil
from ice_core.model.backbone import Backbone
from ice_core.model.lora import Lora
from ice_core.run.events import Drawn, Preview, RunEvent
from ice_core.run.events import Progress as Step
from ice_core.run.folder import RunFolder
from ice_core.run.pipeline import finish
from ice_core.run.presenting import sheet
from ice_core.run.reading import Question, read
from ice_core.run.settings import ExtractionSettings, ShowingConfig
from ice_core.run.training import LEARNING, REFINING, Training
from ice_core.run.training import Job as CoreJob
from ice_core.training.config import TrainingConfig
from ice_core.training.refinement_state import RefinementConfig
from ice_core.training.state import picture_hash

from .values import Progress, say

_REFINEMENT_KEPT_EVERY = 20
"""Steps; a LoRA is some MB to copy, tokens are so little that they are kept after every step."""


@dataclass(frozen=True)
class Job:
    """What is trained. picture: [3, H, W], to cut crops from; concepts: at the model's working size;
    preview_every: steps between live pictures, 0 for none; asked: what is read of the objects first;
    showing: what their properties are shown on; reading: how properties are read."""

    backbone: Backbone
    picture: Tensor
    concepts: ConceptSet
    training: TrainingConfig
    refinement: RefinementConfig
    preview_every: int
    asked: Question
    showing: ShowingConfig
    reading: ReadingConfig = field(default_factory=ReadingConfig)

    @property
    def key(self) -> str:
        """Hash of all that the result depends on."""
        masks = [
            (c.key, c.label, hashlib.sha256(c.mask.byte().cpu().numpy().tobytes()).hexdigest())
            for c in self.concepts.concepts
        ]
        settings = [asdict(config) for config in (self.training, self.refinement)]
        for config in settings:
            del config["snapshot_every"]
        if not self.refinement.steps:
            settings.pop()
        asked = [
            [[axis.name, *axis.values, *axis.degrees] for axis in self.asked.axes],
            self.asked.overruled,
            asdict(self.reading),
            self.asked.towers.fingerprint if self.asked.towers else "",
        ]
        parts = [self.backbone.fingerprint, picture_hash(self.concepts.image), masks, settings, asked]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Result:
    """losses: the total loss of each step, refinement included, as a running mean; sheet: the contact sheet;
    readings: of the objects; saved: what a concept set holds of all that."""

    learned: LearnedConcepts
    lora: Lora | None
    losses: tuple[float, ...]
    sheet: Image.Image
    readings: Readings
    saved: SavedConcepts


def run(job: Job, kept_in: Path, resume: bool) -> Result:
    """Train, and draw the result.

    What ends it early, Cancel too, leaves state, embeddings and a concept set so far in a folder of `kept_in`
    that is named after the job; with `resume` the same job goes on from there. The folder goes when all is
    done. Raises IceError for input that cannot be learned from.
    """
    (result,) = run_all({0: job}, kept_in, resume).values()
    assert isinstance(result, Result)
    return result


def run_all(
    jobs: Mapping[int, Job], kept_in: Path, resume: bool, pictures: int = 1
) -> dict[int, Result | Exception]:
    """`run` of one job after the other, with one bar -> by the number of its picture what came of each.

    pictures: how many there are, for people; of a single one an error is raised. What is done is kept as what
    is cancelled, until all is.
    """
    lengths = {n: max(1, job.training.steps + job.refinement.steps) for n, job in jobs.items()}
    bar, before = Progress(sum(lengths.values())), 0
    results: dict[int, Result | Exception] = {}
    for n, job in jobs.items():
        part = _Part(bar, before, lengths[n], last=n == max(jobs))
        title = f"picture {n + 1} of {pictures}: " if pictures > 1 else ""
        try:
            results[n] = _run(job, kept_in, resume, part, title)
        except (IceError, RuntimeError) as error:
            if pictures == 1:
                raise
            logging.exception("ICE: %sfailed", title)
            results[n] = error
        before += lengths[n]
    for n, result in results.items():
        if isinstance(result, Result):
            shutil.rmtree(_folder(jobs[n], kept_in).path, ignore_errors=True)
    return results


@dataclass(frozen=True)
class _Part:
    """One picture's share of the bar. total: its steps; before: those of the pictures before."""

    bar: Progress
    before: int
    total: int
    last: bool

    def __call__(self, done: int, picture: Image.Image | None = None) -> None:
        self.bar(self.before + done, picture)

    def result(self, picture: Image.Image) -> None:
        """The picture's last one; that of all stays on the node."""
        if self.last:
            self.bar.result(picture)
        else:
            self(self.total, picture)


def _folder(job: Job, kept_in: Path) -> RunFolder:
    return RunFolder(kept_in / job.key[:16])


def _run(job: Job, kept_in: Path, resume: bool, bar: _Part, title: str) -> Result:
    folder = _folder(job, kept_in)
    settings = ExtractionSettings(
        replace(job.training, snapshot_every=1),
        refinement=replace(job.refinement, snapshot_every=_REFINEMENT_KEPT_EVERY),
        showing=job.showing,
        reading=job.reading,
    )
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    core = CoreJob(
        job.backbone, job.concepts, settings, "a picture", date, job.preview_every, keep_snapshots=False
    )
    readings = finish(read(job.backbone, job.concepts, job.asked, settings))
    core = replace(core, readings=readings, judge=job.asked.towers)
    try:
        training = Training(core, folder, resume)
    except IceError as error:
        raise IceError(f"{error}; or turn `resume` off") from error
    before = {LEARNING: 0, REFINING: job.training.steps}

    stage = ""

    def tell(event: RunEvent) -> None:
        nonlocal stage
        if isinstance(event, Preview):
            pictures = [to_pil(x) for x in event.pictures]
            bar(event.step, captioned(pictures, event.keys, event.line))
        elif isinstance(event, Drawn) and job.preview_every:
            bar(bar.total, concept_row(event.shown.row))
        elif isinstance(event, Step):
            if event.stage != stage:
                stage = event.stage
                say(f"{title}{stage}")
            if event.stage in before:
                bar(before[event.stage] + event.done)

    try:
        with training:
            trained = finish(training.events(), tell)
            picture, saved = finish(sheet(core, job.picture, trained, training.history()), tell)
            if title:
                training.keep()
                save_concept_set(saved, folder.concept_set, replace=True)
    except BaseException:
        if training.kept is not None:
            say(_what_is_kept(training.kept, bar.total, folder.path))
        raise
    bar.result(picture)
    say(f"{title}{len(trained.losses)} steps, {sum(training.seconds.values()):.0f} s")
    # Single steps follow single noises: what a person can read off a plot is their mean.
    totals = [step["total"] for step in trained.losses]
    losses = running_mean(totals, max(3, len(totals) // 20))
    return Result(trained.learned, trained.lora, tuple(losses), picture, readings, saved)


def _what_is_kept(step: int, steps: int, folder: Path) -> str:
    return (
        f"Stopped at step {step} of {steps}. What was learned is kept below the output folder, in "
        f"{'/'.join(folder.parts[-3:])}: Run goes on from there, and ICE Load Concepts lists it (press R)."
    )
