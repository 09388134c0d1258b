"""The end of a run: pictures drawn with what was learned, and every file written, the report last."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from ice_core.concepts import Concept, LearnedConcept
from ice_core.evaluation.quality import Quality, quality
from ice_core.figures.presentation import Judge, ShownConcept, draw_rows, headline, sheet_of, write_pictures
from ice_core.files.concept_set import SavedConcepts, save_concept_set
from ice_core.files.embeddings import save_concepts
from ice_core.files.images import jpeg_bytes, load_image, resize_mask, save_png, uri_bytes
from ice_core.files.paths import safe_path
from ice_core.localization.retrieval.towers import ImageTextModel
from ice_core.run.events import Drawn, Progress, RunEvent, Trained
from ice_core.run.folder import History, RunFolder, RunStart
from ice_core.run.report import ConceptReport, Report, peak_memory_mib
from ice_core.run.training import Job, as_concept_set, save_refinement

DRAWING = "drawing pictures"


def draw(job: Job, image: Tensor, trained: Trained) -> Generator[RunEvent, None, list[ShownConcept]]:
    """Rows of every concept, one `Drawn` each. image: [3, H, W] in 0..1, what crops are cut from."""
    rows = draw_rows(
        job.backbone,
        image,
        job.concepts,
        trained.learned,
        job.settings.sampling,
        trained.learned.seed,
        job.settings.showing.others,
        trained.lora,
        _judge(job.judge, job.settings.showing.values) if job.judge else None,
    )
    shown: list[ShownConcept] = []
    total = len(job.concepts.concepts)
    yield Progress(DRAWING, 0, total)
    for row in rows:
        shown.append(row)
        yield Drawn(row)
        yield Progress(DRAWING, len(shown), total, row.row.title)
    return shown


def _judge(model: ImageTextModel, values: Mapping[str, Sequence[str]]) -> Judge:
    """Holds generated pictures against what was read of the object; silent where nothing was read.

    Values that shade into the one read do not count as mistakes: rust is no other color than red.
    """

    def judge(concept: LearnedConcept, axis: str, thing: str, pictures: Tensor) -> Quality | None:
        reading = concept.readings.get(axis)
        if reading is None or reading.value is None:
            return None
        others = values.get(axis) or [candidate.value for candidate in reading.candidates]
        told_apart = [value for value in others if value not in reading.neighbors]
        return quality(model, pictures, axis, reading.value, thing, told_apart)

    return judge


def sheet(
    job: Job, image: Tensor, trained: Trained, history: History
) -> Generator[RunEvent, None, tuple[Image.Image, SavedConcepts]]:
    """The contact sheet, and all of the result as a concept set has it, for hosts that keep their files
    themselves."""
    shown = yield from draw(job, image, trained)
    steps = job.settings.training.steps
    title, line = headline(
        trained.learned,
        job.title,
        sum(history.seconds.values()),
        job.settings.refinement.steps,
        trained.lora,
    )
    picture = sheet_of(
        image, job.concepts.concepts, shown, history.columns(without=("total",)),
        job.settings.training.switch, title, line, refinement=steps if trained.lora else None,
    )  # fmt: skip
    return picture, as_concept_set(job, trained.learned, _files(_thumbnails(shown)), jpeg_bytes(picture))


def _thumbnails(shown: Sequence[ShownConcept]) -> dict[str, str]:
    """Data URIs by name of a token or object."""
    return {name: uri for row in shown for name, uri in row.thumbnails.items()}


def _files(thumbnails: Mapping[str, str]) -> dict[str, bytes]:
    return {name: uri_bytes(uri) for name, uri in thumbnails.items()}


def present(
    job: Job, folder: RunFolder, start: RunStart, trained: Trained, history: History
) -> Generator[RunEvent, None, Report]:
    """Draw the pictures that show the result, write all files, the report last."""
    folder.check_own()
    backbone, concepts, settings = job.backbone, job.concepts, job.settings
    learned, lora, image = trained.learned, trained.lora, load_image(folder.picture)
    clock = time.monotonic()
    height, width = image.shape[1:]
    full = tuple(
        Concept(c.key, c.label, resize_mask(c.mask, (height, width)), c.score) for c in concepts.concepts
    )
    shown = yield from draw(job, image, trained)
    seconds = {**history.seconds, "pictures": time.monotonic() - clock}
    clock = time.monotonic()
    thumbnails = _thumbnails(shown)
    if lora is not None:
        save_refinement(job, folder, learned, lora, settings.refinement.steps)
    embeddings = save_concepts(learned, folder.embeddings, start.date, thumbnails, replace=True)
    masks = {c.key: save_png(c.mask, safe_path(folder.path / "masks", f"{c.key}.png")) for c in full}
    title, line = headline(learned, start.title, sum(seconds.values()), settings.refinement.steps, lora)
    pictures, rows = write_pictures(
        folder.path, image, concepts.concepts, shown, history.columns(without=("total",)),
        settings.training.switch, title, line, refinement=settings.training.steps if lora else None,
    )  # fmt: skip
    if start.rounds:
        pictures = {**pictures, "rounds": folder.rounds}
    saved = as_concept_set(job, learned, _files(thumbnails), jpeg_bytes(load_image(pictures["sheet"])))
    concept_set = save_concept_set(replace(saved, version=start.version), folder.concept_set, replace=True)
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
                embeddings={
                    name: relative(path)
                    for name, path in embeddings.items()
                    if name == concept.key or name.startswith(f"{concept.key}.")
                },
                prompts=row.prompts,
                quality=row.quality,
                readings=job.readings.get(concept.key, {}),
            )
            for concept, row in zip(full, shown, strict=True)
        ),
        rounds=start.rounds,
        concept_set=relative(concept_set),
        lora=relative(folder.lora) if lora else None,
        pictures={name: relative(path) for name, path in {"input": folder.picture, **pictures}.items()},
        seconds={name: round(value, 3) for name, value in seconds.items()},
        peak_memory_mib=peak_memory_mib(),
        settings=asdict(settings),
        source=dict(start.source),
        notes=start.notes,
    )
    report.write(folder.path / "report.json")
    yield Progress("writing files", 1, 1, "sheet.png")
    return report
