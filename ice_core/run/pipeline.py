"""The whole method on one picture, from pixels to files, and how to go on after an interruption."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar, cast

from torch import Tensor

from ice_core.attributes.axes import parse_axes
from ice_core.attributes.values import Axis
from ice_core.concepts import readings_from_plain, readings_to_plain
from ice_core.errors import IceError
from ice_core.figures.rounds import rounds_figure
from ice_core.files.embeddings import check_names
from ice_core.files.images import save_png
from ice_core.files.lock import claimed
from ice_core.files.names import printable
from ice_core.files.paths import check_tensor_folder
from ice_core.localization.naming import Retrieves
from ice_core.localization.retrieval.retriever import Retriever
from ice_core.localization.retrieval.towers import ImageTextModel
from ice_core.model.backbone import Backbone
from ice_core.model.prompts import PRIOR_TEMPLATE, SEGMENTATION_TEMPLATE
from ice_core.run.checks import check_labels, check_prompts, check_vocabulary
from ice_core.run.events import Found, Read, RunEvent, Written
from ice_core.run.finding import find, rounds_to_plain
from ice_core.run.folder import History, RunFolder, RunStart
from ice_core.run.presenting import present
from ice_core.run.reading import Question, read
from ice_core.run.report import Report
from ice_core.run.settings import ExtractionSettings
from ice_core.run.training import Job, Training
from ice_core.version import package_version

Event = TypeVar("Event")
Result = TypeVar("Result")


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
    preview_every: int = 0,
    axes: Sequence[Axis] | None = None,
    overruled: Sequence[str] = (),
    towers: ImageTextModel | None = None,
) -> Generator[RunEvent, None, Report]:
    """Find the concepts of a picture [3, H, W] in 0..1, learn their tokens, write everything into `out`.

    Without labels the retriever names what is there; labels alone are looked for; masks [h, w] are taken as
    they are, or redrawn with `settings.localization.refine_masks`, and named by labels or the retriever. What
    the objects are like on each axis is read by `towers`, without them by the retriever's model, and where
    they are unsure by the backbone, if `settings.reading` says so; else by the backbone alone. axes: those of
    `settings.training.axes` with their values (None: the shipped dictionaries'); overruled: what is known
    better, such as "vase.material=ceramic". title, source and notes go into the report; with `preview_every`
    the objects are drawn as they are every so many steps. Input is checked when this is called, models work
    when events are asked for. Nothing is written before concepts are found and read; from then on `resume`
    can go on, and closing the stream or an exception (Ctrl-C too) leaves what was learned. The last event is
    `Written`. Raises IceError for input that cannot be used, and when `out` holds a run already or another
    process works in it.
    """
    settings = settings or ExtractionSettings()
    labels = [" ".join(label.split()) for label in labels or ()]
    folder = RunFolder(Path(out))
    folder.check_free()
    if retriever is None and not labels:
        raise IceError("without a retriever the objects have to be named: give labels")
    if masks is not None and labels and len(masks) != len(labels):
        raise IceError(f"{len(masks)} masks for {len(labels)} labels; give one label per mask")
    _check(backbone, retriever, settings, labels, masks is None)
    check_tensor_folder(folder.path)
    names = settings.training.axes
    ask = Question(tuple(axes) if axes is not None else parse_axes(names), tuple(overruled), towers)
    if (given := tuple(axis.name for axis in ask.axes)) != names:
        raise IceError(f"the axes {', '.join(given)} are not the settings' {', '.join(names)}; give the same")
    start = RunStart(
        title=printable(title),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        version=package_version(),
        base_name=backbone.name,
        base_fingerprint=backbone.fingerprint,
        settings=asdict(settings),
        source=dict(source or {}),
        notes=tuple(notes),
    )
    events = _extract(backbone, retriever, image, folder, settings, labels, masks, start, preview_every, ask)
    return _alone(folder, events)


def _check(
    backbone: Backbone,
    retriever: Retrieves | None,
    settings: ExtractionSettings,
    labels: Sequence[str],
    searched: bool,
) -> None:
    """Raise IceError for names and prompts that would not work later on."""
    check_labels(labels, settings.training.axes)
    settings.training.check_axes(backbone)
    words = labels
    if not labels and isinstance(retriever, Retriever):
        words = check_vocabulary(retriever.vocabulary, settings.training.axes)
    templates = ["{}"] + [SEGMENTATION_TEMPLATE] * searched
    templates += [PRIOR_TEMPLATE] * (settings.refinement.steps > 0)
    check_prompts(backbone, settings.training, words, templates)


def _extract(
    backbone: Backbone,
    retriever: Retrieves | None,
    image: Tensor,
    folder: RunFolder,
    settings: ExtractionSettings,
    labels: Sequence[str] | None,
    masks: Sequence[Tensor] | None,
    start: RunStart,
    preview_every: int,
    ask: Question,
) -> Generator[RunEvent, None, Report]:
    # Another run may have begun, and ended, since this one was asked for.
    folder.check_free()
    clock = time.monotonic()
    if isinstance(retriever, Retriever):
        ask = replace(ask, towers=ask.towers or retriever.model)
    concepts, rounds = yield from find(backbone, retriever, image, settings, labels, masks, ask.towers)
    check_names([c.key for c in concepts.concepts], settings.training.axes)
    if labels and masks is None:
        absent = [label for label in labels if not any(c.label == label for c in concepts.concepts)]
        missed = tuple(f"nothing was found for the label {label!r}" for label in absent)
        start = replace(start, notes=start.notes + missed)
    seconds = {"localization": time.monotonic() - clock}
    yield Found(concepts)
    clock = time.monotonic()
    readings = yield from read(backbone, concepts, ask, settings)
    seconds["reading"] = time.monotonic() - clock
    save_png(image, folder.picture)
    if rounds:
        save_png(rounds_figure(rounds), folder.rounds)
        start = replace(start, rounds=rounds_to_plain(rounds))
    folder.save_history(History((), seconds))
    folder.save_start(replace(start, readings=readings_to_plain(readings)), concepts)
    yield Read(readings)
    return (yield from _go_on(backbone, folder, preview_every, ask.towers))


def resume(
    backbone: Backbone, out: Path, preview_every: int = 0, judge: ImageTextModel | None = None
) -> Generator[RunEvent, None, Report]:
    """Go on with the run in `out` from its last snapshot, to the same numbers as without interruption.

    judge: the CLIP of the run's retriever, which says how properties came out; without it that is left out.
    Raises IceError when there is none, it was started with another base model, or another process is at it.
    """
    folder = RunFolder(Path(out))
    return _alone(folder, _go_on(backbone, folder, preview_every, judge))


def _alone(folder: RunFolder, events: Generator[RunEvent, None, Report]) -> Generator[RunEvent, None, Report]:
    """The same events, while nobody else works in the folder."""
    with claimed(folder.path), closing(events):
        return (yield from events)


def _go_on(
    backbone: Backbone, folder: RunFolder, preview_every: int, judge: ImageTextModel | None
) -> Generator[RunEvent, None, Report]:
    start, concepts = folder.load_start()
    if start.base_fingerprint != backbone.fingerprint:
        raise IceError(
            f"the run in {folder.path} was started with {start.base_name} ({start.base_fingerprint[:12]}), "
            f"not with {backbone.name} ({backbone.fingerprint[:12]}); give it the same base model"
        )
    settings = ExtractionSettings.from_plain(start.settings)
    check_names([c.key for c in concepts.concepts], settings.training.axes)
    readings = readings_from_plain(start.readings)
    job = Job(
        backbone, concepts, settings, start.title, start.date, preview_every, judge=judge, readings=readings
    )
    return _resume(job, folder, start)


def _resume(job: Job, folder: RunFolder, start: RunStart) -> Generator[RunEvent, None, Report]:
    with Training(job, folder) as training:
        trained = yield from training.events()
        report = yield from present(job, folder, start, trained, training.history())
    yield Written(report)
    return report


def finish(events: Generator[Event, None, Result], listener: Callable[[Event], None] | None = None) -> Result:
    """Let a stream run to its end, telling `listener` every event -> what the stream returns.

    An exception of the listener closes the stream.
    """
    with closing(events):
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                return cast("Result", end.value)
            if listener is not None:
                listener(event)
