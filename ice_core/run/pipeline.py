"""The whole method on one picture, from pixels to files, and how to go on after an interruption."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

from ice_core.concepts import Concept, ConceptSet, LearnedConcepts, unique_key
from ice_core.errors import IceError
from ice_core.figures.presentation import draw_rows, headline, write_pictures
from ice_core.files.embeddings import check_names, save_concepts
from ice_core.files.images import load_image, resize, resize_mask, save_png, working_size
from ice_core.files.lora import save_lora
from ice_core.files.paths import check_writable, safe_path
from ice_core.localization.loop import Retrieves, concepts_from_labels, concepts_from_masks, localize
from ice_core.model.backbone import Backbone
from ice_core.model.lora import Lora
from ice_core.run.folder import History, RunFolder, RunStart
from ice_core.run.report import ConceptReport, Report, peak_memory_mib
from ice_core.run.settings import ExtractionSettings
from ice_core.training.refinement import (
    PriorDrawn,
    Refined,
    RefinementSnapshot,
    RefinementState,
    refine,
)
from ice_core.training.state import TrainingState, learned_so_far
from ice_core.training.trainer import Finished, Snapshot, StepDone, train
from ice_core.version import package_version


@dataclass(frozen=True)
class Progress:
    """How far a stage is: `done` of `total`, and what it is at."""

    stage: str
    done: int
    total: int
    note: str = ""


Listener = Callable[[Progress], None]


def check_labels(labels: Sequence[str], axes: Sequence[str]) -> None:
    """Raise IceError when tokens of these words could not be saved under their names."""
    keys: set[str] = set()
    for label in labels:
        if not label.strip():
            raise IceError("one of the labels is empty; write for example --labels ball,cube")
        keys.add(unique_key(label.strip(), keys))
    check_names(sorted(keys), axes)


def extract(
    backbone: Backbone,
    retriever: Retrieves | None,
    image: Tensor,
    out: Path,
    settings: ExtractionSettings | None = None,
    labels: Sequence[str] | None = None,
    masks: Sequence[Tensor] | None = None,
    title: str = "a picture",
    source: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    listener: Listener | None = None,
) -> Report:
    """Find the concepts of a picture [3, H, W] in 0..1, learn their tokens, write everything into `out`.

    Without labels the retriever names what is there; labels alone are looked for; labels with masks [h, w]
    are taken as they are. title, source and notes go into the report. Nothing is written before concepts
    are found; from then on `resume` can go on, and an exception (Ctrl-C too) leaves what was learned.
    Raises IceError for input that cannot be used, and when `out` holds a run already.
    """
    settings = settings or ExtractionSettings()
    folder = RunFolder(Path(out))
    if folder.started:
        raise IceError(f"{out} holds a run already; resume it, or choose another folder")
    if retriever is None and not labels:
        raise IceError("without a retriever the objects have to be named: give labels")
    if masks is not None and len(masks) != len(labels or ()):
        raise IceError(f"{len(masks)} masks for {len(labels or ())} labels; give one label per mask")
    check_labels(labels or (), settings.training.axes)
    settings.training.check_axes(backbone)
    check_writable(folder.path)
    clock = time.monotonic()
    concepts = _find(backbone, retriever, image, settings, labels, masks, listener)
    check_names([c.key for c in concepts.concepts], settings.training.axes)
    if labels and masks is None:
        absent = [label for label in labels if not any(c.label == label.strip() for c in concepts.concepts)]
        notes = [*notes, *(f"nothing was found for the label {label!r}" for label in absent)]
    start = RunStart(
        title=title,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        version=package_version(),
        base_name=backbone.name,
        base_fingerprint=backbone.fingerprint,
        settings=asdict(settings),
        source=dict(source or {}),
        notes=tuple(notes),
    )
    save_png(image, folder.picture)
    folder.save_history(History((), {"localization": time.monotonic() - clock}))
    folder.save_start(start, concepts)
    return resume(backbone, out, listener)


def resume(backbone: Backbone, out: Path, listener: Listener | None = None) -> Report:
    """Go on with the run in `out` from its last snapshot, to the same numbers as without interruption.

    Raises IceError when there is none, or it was started with another base model.
    """
    folder = RunFolder(Path(out))
    start, concepts = folder.load_start()
    if start.base_fingerprint != backbone.fingerprint:
        raise IceError(
            f"the run in {out} was started with {start.base_name} ({start.base_fingerprint[:12]}), not with "
            f"{backbone.name} ({backbone.fingerprint[:12]}); give it the same base model"
        )
    settings = ExtractionSettings.from_plain(start.settings)
    image = load_image(folder.picture)
    state, refined, history = folder.load_progress()
    learned, history = _learn(backbone, folder, concepts, settings, start, state, history, listener)
    lora = None
    if settings.refinement.steps:
        lora, history = _refine(
            backbone, folder, concepts, learned, settings, start, refined, history, listener
        )
    return _present(backbone, folder, image, concepts, learned, lora, settings, start, history, listener)


def _tell(listener: Listener | None, stage: str, done: int, total: int, note: str = "") -> None:
    if listener is not None:
        listener(Progress(stage, done, total, note))


def _find(
    backbone: Backbone,
    retriever: Retrieves | None,
    image: Tensor,
    settings: ExtractionSettings,
    labels: Sequence[str] | None,
    masks: Sequence[Tensor] | None,
    listener: Listener | None,
) -> ConceptSet:
    """Stage One at the size the model works at; IceError when nothing is found."""
    stage, config = "finding objects", settings.localization
    size = working_size(image.shape[1], image.shape[2], backbone.native_size, backbone.multiple)
    small = resize(image, size)
    generator = torch.Generator().manual_seed(settings.training.seed)
    rounds = config.max_rounds
    _tell(listener, stage, 0, rounds)
    if labels and masks is not None:
        result = concepts_from_masks(small, labels, masks)
    elif labels:
        result = concepts_from_labels(backbone, small, labels, config, generator)
    else:
        assert retriever is not None
        for step in localize(backbone, retriever, small, config, generator):
            result = step.result
            _tell(listener, stage, step.index, rounds, f"{step.label}: {len(step.found)} found")
    if not result.concepts:
        what = f"of {', '.join(labels)} " if labels else ""
        raise IceError(f"no object {what}was found; name and mark them with --labels and --masks")
    _tell(listener, stage, rounds, rounds, ", ".join(c.key for c in result.concepts))
    return result


def _learn(
    backbone: Backbone,
    folder: RunFolder,
    concepts: ConceptSet,
    settings: ExtractionSettings,
    start: RunStart,
    state: TrainingState | None,
    history: History,
    listener: Listener | None,
) -> tuple[LearnedConcepts, History]:
    """Stage Two; every snapshot is saved, and whatever ends it leaves the embeddings so far."""
    stage, config, date = "learning tokens", settings.training, start.date
    losses, before, clock = list(history.losses), history.seconds, time.monotonic()

    def so_far() -> History:
        spent = before.get("training", 0.0) + time.monotonic() - clock
        return History(tuple(losses), {**before, "training": spent})

    if state is not None and state.step == config.steps:
        return learned_so_far(state), history
    _tell(listener, stage, state.step if state else 0, config.steps)
    try:
        for event in train(backbone, concepts, config, resume=state):
            if isinstance(event, StepDone):
                losses.append(event.losses)
                _tell(listener, stage, event.step, event.steps, f"loss {event.losses['total']:.3f}")
            elif isinstance(event, Snapshot):
                state = event.state
                folder.save_progress(state, so_far())
            elif isinstance(event, Finished):
                save_concepts(event.learned, folder.embeddings, date, replace=True)
                return event.learned, so_far()
    except BaseException:
        if isinstance(state, TrainingState):
            save_concepts(learned_so_far(state), folder.embeddings, date, replace=True)
        raise
    raise AssertionError("training ended without a result")


def _refine(
    backbone: Backbone,
    folder: RunFolder,
    concepts: ConceptSet,
    learned: LearnedConcepts,
    settings: ExtractionSettings,
    start: RunStart,
    state: RefinementState | None,
    history: History,
    listener: Listener | None,
) -> tuple[Lora, History]:
    """Refinement; every snapshot is saved, and whatever ends it leaves the LoRA so far."""
    stage, config = "refining weights", settings.refinement
    losses, before, clock = list(history.losses), history.seconds, time.monotonic()

    def so_far() -> History:
        spent = before.get("refinement", 0.0) + time.monotonic() - clock
        return History(tuple(losses), {**before, "refinement": spent})

    def save(state: RefinementState) -> Lora:
        extra = {"ice.refinement_steps": str(state.step), "ice.lora_rank": str(config.rank)}
        title = f"refinement of {start.title}"
        save_lora(state.lora, folder.lora, learned, start.date, title, extra=extra, replace=True)
        return state.lora

    if state is not None and state.step == config.steps:
        return save(state), history
    try:
        for event in refine(backbone, concepts, learned, config, resume=state):
            if isinstance(event, PriorDrawn):
                _tell(listener, "drawing a prior", event.done, event.total)
            elif isinstance(event, StepDone):
                losses.append(event.losses)
                _tell(listener, stage, event.step, event.steps, f"loss {event.losses['total']:.3f}")
            elif isinstance(event, RefinementSnapshot):
                state = event.state
                folder.save_progress(state, so_far())
            elif isinstance(event, Refined):
                return save(event.state), so_far()
    except BaseException:
        if state is not None and state.step:
            save(state)
        raise
    raise AssertionError("refinement ended without a result")


def _present(
    backbone: Backbone,
    folder: RunFolder,
    image: Tensor,
    concepts: ConceptSet,
    learned: LearnedConcepts,
    lora: Lora | None,
    settings: ExtractionSettings,
    start: RunStart,
    history: History,
    listener: Listener | None,
) -> Report:
    """Draw the pictures that show the result, write all files, the report last."""
    clock, total = time.monotonic(), len(concepts.concepts)
    height, width = image.shape[1:]
    full = tuple(
        Concept(c.key, c.label, resize_mask(c.mask, (height, width)), c.score) for c in concepts.concepts
    )
    stage = "drawing pictures"
    _tell(listener, stage, 0, total)
    shown = []
    for row in draw_rows(backbone, image, concepts, learned, settings.sampling, learned.seed, lora):
        shown.append(row)
        _tell(listener, stage, len(shown), total, row.row.title)
    seconds = {**history.seconds, "pictures": time.monotonic() - clock}
    clock = time.monotonic()
    thumbnails = {name: uri for row in shown for name, uri in row.thumbnails.items()}
    embeddings = save_concepts(learned, folder.embeddings, start.date, thumbnails, replace=True)
    masks = {c.key: save_png(c.mask, safe_path(folder.path / "masks", f"{c.key}.png")) for c in full}
    title, line = headline(learned, start.title, sum(seconds.values()), settings.refinement.steps, lora)
    pictures, rows = write_pictures(
        folder.path, image, concepts.concepts, [row.row for row in shown],
        history.columns(without=("total",)), settings.training.switch, title, line,
        refinement=settings.training.steps if lora else None,
    )  # fmt: skip
    seconds["writing"] = time.monotonic() - clock

    def relative(path: Path) -> str:
        return path.relative_to(folder.path).as_posix()

    report = Report(
        version=start.version,
        date=start.date,
        title=start.title,
        base_name=backbone.name,
        base_fingerprint=backbone.fingerprint,
        architecture=backbone.architecture,
        seed=settings.training.seed,
        image_size=(width, height),
        working_size=(concepts.image.shape[2], concepts.image.shape[1]),
        unexplained=concepts.unexplained,
        concepts=tuple(
            ConceptReport(
                key=concept.key,
                label=concept.label,
                score=concept.score,
                box=concept.box,
                area=int(concept.mask.sum()),
                area_share=concept.area,
                mask=relative(masks[concept.key]),
                row=relative(rows[concept.key]),
                embeddings={n: relative(p) for n, p in embeddings.items() if n.startswith(f"{concept.key}.")},
                prompts=row.prompts,
            )
            for concept, row in zip(full, shown, strict=True)
        ),
        lora=relative(folder.lora) if lora else None,
        pictures={name: relative(path) for name, path in {"input": folder.picture, **pictures}.items()},
        seconds={name: round(value, 3) for name, value in seconds.items()},
        peak_memory_mib=peak_memory_mib(),
        settings=asdict(settings),
        source=dict(start.source),
        notes=start.notes,
    )
    report.write(folder.path / "report.json")
    _tell(listener, "writing files", 1, 1, "sheet.png")
    return report
