"""One training in the host: progress and live pictures, and what is kept when it is cancelled."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ice_core.composition import showcase_prompts
from ice_core.concepts import ConceptSet, LearnedConcepts
from ice_core.errors import IceError
from ice_core.figures.pictures import contact_sheet
from ice_core.figures.presentation import draw_rows, headline
from ice_core.files.embeddings import save_concepts
from ice_core.files.images import to_pil
from ice_core.files.lora import save_lora
from ice_core.model.backbone import Backbone, Prompt
from ice_core.model.lora import Lora
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.run.folder import History, RunFolder
from ice_core.training.config import TrainingConfig
from ice_core.training.events import Finished, Snapshot, StepDone
from ice_core.training.refinement import Refined, RefinementSnapshot, RefinementState, refine
from ice_core.training.refinement_state import RefinementConfig
from ice_core.training.state import TrainingState, learned_so_far, picture_hash
from ice_core.training.trainer import train

from .drawings import captioned
from .values import Progress

_PREVIEW_STEPS, _PREVIEW_OBJECTS = 8, 4
_REFINEMENT_KEPT_EVERY = 20
"""Steps; a LoRA is some MB to copy, tokens are so little that they are kept after every step."""


@dataclass(frozen=True)
class Job:
    """What is trained. picture: [3, H, W], to cut crops from; concepts: at the model's working size;
    preview_every: steps between live pictures, 0 for none."""

    backbone: Backbone
    picture: Tensor
    concepts: ConceptSet
    training: TrainingConfig
    refinement: RefinementConfig
    preview_every: int

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
        parts = [self.backbone.fingerprint, picture_hash(self.concepts.image), masks, settings]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Result:
    """losses: the total loss of each step, refinement included; sheet: the contact sheet."""

    learned: LearnedConcepts
    lora: Lora | None
    losses: tuple[float, ...]
    sheet: Image.Image


def run(job: Job, kept_in: Path, resume: bool) -> Result:
    """Train, and draw the result.

    What ends it early, Cancel too, leaves state and embeddings so far in a folder of `kept_in` that is
    named after the job; with `resume` the same job goes on from there. The folder goes when all is done.
    Raises IceError for input that cannot be learned from.
    """
    work = _Run(job, RunFolder(kept_in / job.key[:16]), resume)
    try:
        learned = work.learn()
        lora = work.refine(learned) if job.refinement.steps else None
        sheet = work.draw(learned, lora)
    except BaseException:
        work.keep()
        raise
    shutil.rmtree(work.folder.path, ignore_errors=True)
    return Result(learned, lora, tuple(step["total"] for step in work.losses), sheet)


class _Run:
    """The moving parts: states of the last snapshots, losses so far, and the bar."""

    def __init__(self, job: Job, folder: RunFolder, resume: bool) -> None:
        self.job, self.folder, self.clock = job, folder, time.monotonic()
        self.state: TrainingState | None = None
        self.refined: RefinementState | None = None
        self.losses: list[Mapping[str, float]] = []
        if resume:
            try:
                self.state, self.refined, history = folder.load_progress()
            except IceError as error:
                raise IceError(f"{error}; or turn `resume` off") from error
            self.losses = list(history.losses)
        self.progress = Progress(job.training.steps + job.refinement.steps)

    def learn(self) -> LearnedConcepts:
        """The tokens of every object."""
        job, state = self.job, self.state
        config = replace(job.training, snapshot_every=1)
        if state is not None and state.step == config.steps:
            return learned_so_far(state)
        events = train(job.backbone, job.concepts, config, resume=state)
        self.progress(state.step if state else 0)
        for event in events:
            if isinstance(event, StepDone):
                self.losses.append(event.losses)
                self.progress(event.step)
            elif isinstance(event, Snapshot):
                self.state = event.state
                if self._preview_due(event.state.step):
                    intrinsic = event.state.step > config.switch
                    self._show(learned_so_far(event.state), event.state.step, intrinsic, None)
            elif isinstance(event, Finished):
                return event.learned
        raise AssertionError("training ended without a result")

    def refine(self, learned: LearnedConcepts) -> Lora:
        """The LoRA with which the tokens draw their objects."""
        job, state, done = self.job, self.refined, self.job.training.steps
        if state is not None and state.step == job.refinement.steps:
            return state.lora
        every = math.gcd(job.preview_every, _REFINEMENT_KEPT_EVERY)
        config = replace(job.refinement, snapshot_every=every)
        events = refine(job.backbone, job.concepts, learned, config, resume=state)
        self.progress(done + (state.step if state else 0))
        for event in events:
            if isinstance(event, StepDone):
                self.losses.append(event.losses)
                self.progress(done + event.step)
            elif isinstance(event, RefinementSnapshot):
                self.refined = event.state
                if event.state.step and self._preview_due(event.state.step):
                    self._show(learned, done + event.state.step, True, event.state.lora)
            elif isinstance(event, Refined):
                return event.lora
        raise AssertionError("refinement ended without a result")

    def _preview_due(self, step: int) -> bool:
        return self.job.preview_every > 0 and step % self.job.preview_every == 0

    def _show(self, learned: LearnedConcepts, step: int, intrinsic: bool, lora: Lora | None) -> None:
        """Draw the objects with the tokens so far, as they are trained now, on the node."""
        concepts = learned.concepts[:_PREVIEW_OBJECTS]
        prompts = [
            showcase_prompts(c)[0][1] if intrinsic else Prompt(("a photo of", c.instance, c.object))
            for c in concepts
        ]
        generator = torch.Generator().manual_seed(self.job.training.seed)
        config = SamplingConfig(steps=_PREVIEW_STEPS)
        pictures = [to_pil(x) for x in sample(self.job.backbone, prompts, config, generator, lora=lora)]
        phase = "refinement" if lora is not None else "intrinsic" if intrinsic else "object"
        loss = self.losses[-1]["total"]
        line = f"step {step} of {self.progress.total}  ·  {phase} level  ·  loss {loss:.3f}"
        self.progress(step, captioned(pictures, [concept.key for concept in concepts], line))

    def draw(self, learned: LearnedConcepts, lora: Lora | None) -> Image.Image:
        """The contact sheet, drawn with the model itself."""
        job, concepts = self.job, self.job.concepts
        rows = draw_rows(job.backbone, job.picture, concepts, learned, SamplingConfig(), learned.seed, lora)
        drawn = [shown.row for shown in rows]
        title, line = headline(
            learned, "a picture", time.monotonic() - self.clock, job.refinement.steps, lora
        )
        return contact_sheet(
            job.picture, concepts.concepts, drawn, History(tuple(self.losses)).columns(without=("total",)),
            job.training.switch, title, line, refinement=job.training.steps if lora else None,
        )  # fmt: skip

    def keep(self) -> None:
        """Save states and what can be used of them. Never hides what ended the run."""
        state, refined = self.state, self.refined
        if state is None:
            return
        try:
            history = History(tuple(self.losses))
            date = datetime.now(timezone.utc).isoformat(timespec="seconds")
            learned = learned_so_far(state)
            self.folder.save_progress(state, history)
            save_concepts(learned, self.folder.embeddings, date, replace=True)
            if refined is not None:
                self.folder.save_progress(refined, history)
                save_lora(refined.lora, self.folder.lora, learned, date, replace=True)
        except IceError as error:
            logging.warning("ICE: what was learned so far could not be kept: %s", error)
            return
        done = state.step + (refined.step if refined else 0)
        logging.info("ICE: what was learned up to step %d is in %s", done, self.folder.path)
