"""Stage Two of a run: learning and refinement with their states on disk, as one stream of events."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field, replace

import torch

from ice_core.composition import showcase_prompts
from ice_core.concepts import ConceptSet, LearnedConcepts, Readings
from ice_core.errors import IceError
from ice_core.files.concept_set import SavedConcepts, save_concept_set
from ice_core.files.embeddings import save_concepts
from ice_core.files.images import jpeg_bytes
from ice_core.files.lora import save_lora
from ice_core.localization.retrieval.towers import ImageTextModel
from ice_core.model.backbone import Backbone
from ice_core.model.lora import Lora
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.run.events import Preview, Progress, RunEvent, Trained
from ice_core.run.folder import History, RunFolder
from ice_core.run.settings import ExtractionSettings
from ice_core.training.events import Finished, Snapshot, StepDone
from ice_core.training.refinement import PriorDrawn, Refined, RefinementSnapshot, RefinementState, refine
from ice_core.training.state import TrainingState, learned_so_far
from ice_core.training.trainer import train

LEARNING, PRIOR, REFINING = "learning tokens", "drawing a prior", "refining weights"
_PREVIEW_STEPS, _PREVIEW_OBJECTS = 8, 4


@dataclass(frozen=True)
class Job:
    """What is trained, and how much is told and kept on the way.

    concepts: at the model's working size; readings: of them; title, date (ISO 8601): go into the files.
    preview_every: steps between `Preview` events, of which there is one between the phases too; 0 for none.
    keep_snapshots: write every snapshot to disk as it comes; else a state is written only when training
        ends early, and snapshots may be as frequent as one likes.
    judge: says how properties came out on other objects, None where nobody can.
    """

    backbone: Backbone
    concepts: ConceptSet
    settings: ExtractionSettings
    title: str
    date: str
    preview_every: int = 0
    keep_snapshots: bool = True
    judge: ImageTextModel | None = None
    readings: Readings = field(default_factory=dict)


class Training:
    """Learning and refining one job, with what there is to keep: a context that saves it when left early.

    With `resume` it goes on from the state in `folder`, to the numbers of an uninterrupted run. An exception
    inside the context, Cancel and a closed stream too, leaves embeddings, a concept set and LoRA so far in
    `folder`, and a state to go on from. Raises IceError for a damaged state.
    """

    def __init__(self, job: Job, folder: RunFolder, resume: bool = True) -> None:
        folder.check_own()
        self.job, self.folder = job, folder
        self.state, self.refined, before = folder.load_progress() if resume else (None, None, History())
        self.losses: list[Mapping[str, float]] = list(before.losses)
        self.seconds = dict(before.seconds)
        self.kept: int | None = None
        """The step up to which `keep` has saved; None while it has not."""

    def __enter__(self) -> Training:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.keep()

    def events(self) -> Generator[RunEvent, None, Trained]:
        """Learn the tokens and, where refinement has steps, the LoRA; the last event is also returned.

        Raises IceError for input that cannot be learned from.
        """
        learned = yield from self._learn()
        lora = (yield from self._refine(learned)) if self.job.settings.refinement.steps else None
        trained = Trained(learned, lora, tuple(self.losses))
        yield trained
        return trained

    def history(self) -> History:
        """Losses so far, and seconds spent per stage."""
        return History(tuple(self.losses), dict(self.seconds))

    def _learn(self) -> Generator[RunEvent, None, LearnedConcepts]:
        """The tokens of every object."""
        job, config = self.job, self.job.settings.training
        if self.state is not None and self.state.finished:
            self.state.check(job.backbone, job.concepts, config)
            return learned_so_far(self.state)
        every = math.gcd(config.snapshot_every, job.preview_every)
        yield Progress(LEARNING, self.state.step if self.state else 0, config.steps)
        events = train(
            job.backbone, job.concepts, replace(config, snapshot_every=every), job.readings, self.state
        )
        clock, spent = time.monotonic(), self.seconds.get("training", 0.0)
        for event in events:
            self.seconds["training"] = spent + time.monotonic() - clock
            if isinstance(event, StepDone):
                self.losses.append(event.losses)
                yield self._step(LEARNING, event)
            elif isinstance(event, Snapshot):
                self.state = event.state
                turn = event.state.step == config.switch
                self._snapshot(event.state, config.snapshot_every, turn or event.state.finished)
                if self._preview_due(event.state.step, turn):
                    intrinsic = config.method != "paper" or event.state.step > config.switch
                    yield self._preview(learned_so_far(event.state), event.state.step, intrinsic, None)
            elif isinstance(event, Finished):
                return event.learned
        raise AssertionError("training ended without a result")

    def _refine(self, learned: LearnedConcepts) -> Generator[RunEvent, None, Lora]:
        """The LoRA with which the tokens draw their objects."""
        job, config, before = self.job, self.job.settings.refinement, self.job.settings.training.steps
        if self.refined is not None and self.refined.step == config.steps:
            self.refined.check(job.backbone, job.concepts, learned, config)
            return self.refined.lora
        every = math.gcd(config.snapshot_every, job.preview_every)
        events = refine(
            job.backbone, job.concepts, learned, replace(config, snapshot_every=every), resume=self.refined
        )
        clock, spent = time.monotonic(), self.seconds.get("refinement", 0.0)
        for event in events:
            self.seconds["refinement"] = spent + time.monotonic() - clock
            if isinstance(event, PriorDrawn):
                yield Progress(PRIOR, event.done, event.total)
            elif isinstance(event, StepDone):
                self.losses.append(event.losses)
                yield self._step(REFINING, event)
            elif isinstance(event, RefinementSnapshot):
                self.refined = event.state
                self._snapshot(event.state, config.snapshot_every, event.state.step == config.steps)
                if self._preview_due(event.state.step):
                    yield self._preview(learned, before + event.state.step, True, event.state.lora)
            elif isinstance(event, Refined):
                return event.lora
        raise AssertionError("refinement ended without a result")

    def _step(self, stage: str, event: StepDone) -> Progress:
        return Progress(stage, event.step, event.steps, f"loss {event.losses['total']:.3f}")

    def _snapshot(self, state: TrainingState | RefinementState, every: int, now: bool) -> None:
        if self.job.keep_snapshots and (now or state.step % every == 0):
            self.folder.save_progress(state, self.history())

    def _preview_due(self, step: int, turn: bool = False) -> bool:
        """turn: whether a phase of the training ends with this step, after which much is new."""
        every = self.job.preview_every
        return every > 0 and step > 0 and (turn or step % every == 0)

    def _preview(self, learned: LearnedConcepts, step: int, intrinsic: bool, lora: Lora | None) -> Preview:
        """The objects drawn with the tokens so far, as they are trained now."""
        settings = self.job.settings
        concepts = learned.concepts[:_PREVIEW_OBJECTS]
        prompts = [
            showcase_prompts(c if intrinsic or c.instance is None else replace(c, intrinsics={}))[0][1]
            for c in concepts
        ]
        generator = torch.Generator().manual_seed(settings.training.seed)
        config = SamplingConfig(_PREVIEW_STEPS, eta=0)
        pictures = sample(self.job.backbone, prompts, config, generator, lora=lora)
        phase = "refinement" if lora is not None else "intrinsic" if intrinsic else "object"
        total = settings.training.steps + settings.refinement.steps
        line = f"step {step} of {total}  ·  {phase} level  ·  loss {self.losses[-1]['total']:.3f}"
        return Preview(step, tuple(concept.key for concept in concepts), pictures, line)

    def keep(self) -> None:
        """Save states and what can be used of them. Never hides what ended the run."""
        state, refined = self.state, self.refined
        if state is None:
            return
        try:
            learned = learned_so_far(state)
            if not self.job.keep_snapshots:
                self.folder.save_progress(state, self.history())
            save_concepts(learned, self.folder.embeddings, self.job.date, replace=True)
            save_concept_set(as_concept_set(self.job, learned), self.folder.concept_set, replace=True)
            if refined is not None and (refined.step or not self.job.keep_snapshots):
                if not self.job.keep_snapshots:
                    self.folder.save_progress(refined, self.history())
                save_refinement(self.job, self.folder, learned, refined.lora, refined.step)
        except IceError as error:
            logging.warning("ICE: what was learned so far could not be kept: %s", error)
            return
        self.kept = state.step + (refined.step if refined else 0)
        logging.info("ICE: what was learned up to step %d is in %s", self.kept, self.folder.path)


def as_concept_set(
    job: Job,
    learned: LearnedConcepts,
    thumbnails: Mapping[str, bytes] | None = None,
    sheet: bytes | None = None,
) -> SavedConcepts:
    """What was learned with all that goes into a concept set beside it; pictures are whole files, the
    picture itself at working size."""
    found = job.concepts
    return SavedConcepts(
        learned, found.concepts, found.background, asdict(job.settings), job.title, job.date,
        thumbnails=thumbnails or {}, sheet=sheet, picture=jpeg_bytes(found.image),
    )  # fmt: skip


def save_refinement(job: Job, folder: RunFolder, learned: LearnedConcepts, lora: Lora, step: int) -> None:
    """Write the LoRA of a run as it stands after `step` steps of refinement."""
    extra = {"ice.refinement_steps": str(step), "ice.lora_rank": str(job.settings.refinement.rank)}
    save_lora(lora, folder.lora, learned, job.date, f"refinement of {job.title}", extra=extra, replace=True)
