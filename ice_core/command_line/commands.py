"""What `ice demo` and `ice extract` do.

Cheap checks come first in every command, the imports of torch and the models after them.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ice_core.command_line import models
from ice_core.command_line.console import progress_display
from ice_core.command_line.library_commands import file_result
from ice_core.errors import IceError
from ice_core.files.paths import check_tensor_folder, check_writable, free_folder
from ice_core.library.store import Library
from ice_core.run.defaults import (
    AXES,
    BUNDLED_STEPS,
    CHECKPOINT_STEPS,
    CLIPS,
    METHOD,
    SNAPSHOT_EVERY,
)
from ice_core.run.report import OUTPUTS

_FIXED = (
    "seed", "out", "axes", "set", "reading_noises", "method", "budget", "steps", "refine", "refine_text",
    "dtype",
)  # fmt: skip
"""Options that a run keeps when it is resumed."""

_WHAT_IS_FOUND = (
    "labels", "masks", "refine_masks", "body_parts", "checkpoint", "clip", "vocabulary",
)  # fmt: skip
"""Options of extracting that a run keeps when it is resumed."""

if TYPE_CHECKING:
    from ice_core.attributes.values import Axis
    from ice_core.localization.retrieval.retriever import Retriever
    from ice_core.model.backbone import Backbone
    from ice_core.run.events import RunEvent
    from ice_core.run.report import Report
    from ice_core.run.settings import ExtractionSettings


def demo(arguments: argparse.Namespace) -> None:
    if arguments.resume:
        _resume(arguments, (*_FIXED,))
        return
    out = _output_folder(arguments.out or Path("ice-output/demo"))
    seed = arguments.seed or 0
    settings, axes = settings_for(arguments, seed, BUNDLED_STEPS, bundled=True)
    from ice_core.api import load_retriever, reading_towers
    from ice_core.run import pipeline
    from ice_core.world.renderer import render
    from ice_core.world.scenes import sample_scene

    scene = sample_scene(seed, count=2)
    objects = " and ".join(f"a {o.color} {o.pattern} {o.material} {o.kind}" for o in scene.objects)
    print(f"the scene: {objects} on {scene.ground}", flush=True)
    image = render([scene]).images[0]
    backbone = models.open_backbone(None, "cpu", arguments.dtype, arguments.gradient_checkpointing)
    events = pipeline.extract(
        backbone, load_retriever(backbone), image, out, settings, title=f"the rendered scene {seed}",
        source={**_source("demo", arguments), "clip": ""}, notes=[f"rendered: {objects} on {scene.ground}"],
        preview_every=arguments.preview_every or 0, axes=axes,
        overruled=arguments.set or (), towers=reading_towers(backbone),
    )  # fmt: skip
    _print_result(_follow(events, out), out)


def extract(arguments: argparse.Namespace) -> None:
    if arguments.resume:
        _resume(arguments, ("images", *_FIXED, *_WHAT_IS_FOUND))
        return
    images, labels, masks = arguments.images, arguments.labels, arguments.masks
    if not images:
        raise IceError("no picture was given; write for example: ice extract photo.jpg")
    for path in (*images, *(masks or ()), arguments.checkpoint, arguments.vocabulary):
        if path is not None and not os.path.isfile(path):
            raise IceError(f"there is no file {path}")
    if masks and labels and len(masks) != len(labels):
        raise IceError(f"{len(masks)} masks for {len(labels)} labels; give one label per mask, or none")
    if arguments.refine_masks and not masks:
        raise IceError("--refine-masks redraws given masks; give some with --masks")
    if arguments.body_parts and (arguments.vocabulary or not arguments.checkpoint):
        raise IceError(
            "--body-parts adds to the words for photographs; give --checkpoint, and no --vocabulary"
        )
    if labels and (arguments.clip or arguments.vocabulary or arguments.body_parts):
        raise IceError(
            "--labels names the objects, --clip, --vocabulary and --body-parts have no use; leave them out"
        )
    if masks and len(images) > 1:
        raise IceError(f"masks belong to one picture, but {len(images)} were given; extract them one by one")
    parent = arguments.out or Path("ice-output")
    several = len(images) > 1 or arguments.out is None
    outs: list[Path] = []
    for path in images:
        wanted = parent / _folder_name(path) if several else parent
        outs.append(_output_folder(wanted, outs))
    if arguments.library:
        # Not only when everything is learned.
        Library(arguments.library).close()
    steps = CHECKPOINT_STEPS if arguments.checkpoint else BUNDLED_STEPS
    settings, axes = settings_for(arguments, arguments.seed or 0, steps, bundled=not arguments.checkpoint)

    if arguments.refine_masks:
        settings = replace(settings, localization=replace(settings.localization, refine_masks=True))

    from ice_core.api import reading_towers
    from ice_core.files.images import load_image_with_notes, load_mask
    from ice_core.run import pipeline
    from ice_core.run.checks import check_labels

    check_labels(labels or (), settings.training.axes)
    pictures = [load_image_with_notes(path) for path in images]
    mask_notes, loaded = [], None
    if masks:
        size = (pictures[0][0].shape[1], pictures[0][0].shape[2])
        loaded = []
        for path in masks:
            mask, resized = load_mask(path, size)
            loaded.append(mask)
            if resized:
                mask_notes.append(f"mask {path.name}: resized to the picture's {size[1]} x {size[0]} pixels")
    for note in (*(n for _, notes in pictures for n in notes), *mask_notes):
        print(f"note: {note}", file=sys.stderr)
    backbone = models.open_backbone(
        arguments.checkpoint, arguments.device, arguments.dtype, arguments.gradient_checkpointing
    )
    retriever, how = (None, []) if labels else _retriever(arguments, backbone)
    source = _source("extract", arguments)
    if arguments.checkpoint:
        source["checkpoint"] = str(arguments.checkpoint.resolve())
    if retriever:
        source["clip"] = _clip(arguments, backbone) or ""
    for path, (image, notes), out in zip(images, pictures, outs, strict=True):
        if len(images) > 1:
            print(f"{path} -> {out}", flush=True)
        events = pipeline.extract(
            backbone, retriever, image, out, settings, labels, loaded, title=path.name,
            source={**source, "picture": str(path)}, notes=[*how, *notes, *mask_notes],
            preview_every=arguments.preview_every or 0, axes=axes,
            overruled=arguments.set or (), towers=reading_towers(backbone),
        )  # fmt: skip
        _print_result(_follow(events, out), out)
        if arguments.library:
            file_result(arguments.library, out, str(path))


def _resume(arguments: argparse.Namespace, fixed: Sequence[str]) -> None:
    # 0 is given, too: it is no noises to read through.
    values = {name: getattr(arguments, name) for name in fixed}
    given = [name for name, value in values.items() if not (value is None or value is False or value == [])]
    if given:
        raise IceError(f"--resume goes on with the run's own settings; leave out: {', '.join(given)}")
    out = arguments.resume
    if not os.path.isfile(out / "run.json"):
        raise IceError(f"there is no run to resume in {out}; give the output folder of an interrupted run")
    check_writable(out)
    from ice_core.api import load_retriever
    from ice_core.run import pipeline
    from ice_core.run.folder import RunFolder

    start, _ = RunFolder(out).load_start()
    checkpoint = start.source.get("checkpoint")
    device = getattr(arguments, "device", "cpu")
    dtype = start.source.get("dtype")
    file = Path(checkpoint) if checkpoint else None
    backbone = models.open_backbone(file, device, dtype, arguments.gradient_checkpointing)
    judge = load_retriever(backbone, start.source["clip"] or None).model if "clip" in start.source else None
    events = pipeline.resume(backbone, out, arguments.preview_every or 0, judge)
    _print_result(_follow(events, out), out)
    if library := getattr(arguments, "library", None):
        file_result(library, out, start.source.get("picture", str(out)))


def settings_for(
    arguments: argparse.Namespace, seed: int, steps: int, bundled: bool
) -> tuple[ExtractionSettings, tuple[Axis, ...]]:
    """Settings, and their axes with values. bundled: whether the rendered world's model is used, which draws
    other things than photographs."""
    from ice_core.api import axes_for, reading_for, showing_for
    from ice_core.run.settings import ExtractionSettings
    from ice_core.training.config import FROM_WORDS, STEPS, AnchoredConfig, Method, TrainingConfig
    from ice_core.training.refinement import RefinementConfig

    method: Method = arguments.method if arguments.method else METHOD
    if arguments.budget and method != "anchored":
        raise IceError(f"--budget is for --method anchored, not {method}; leave it out, or give --steps")
    if arguments.reading_noises and method not in FROM_WORDS:
        raise IceError(f"--reading-noises is for methods that start from words, not {method}; leave it out")
    axes = axes_for(bundled, arguments.axes or AXES)
    usual = STEPS[method] if method in FROM_WORDS else steps
    training = TrainingConfig(
        tuple(axis.name for axis in axes),
        arguments.steps or usual,
        seed=seed,
        snapshot_every=SNAPSHOT_EVERY,
        method=method,
        anchored=AnchoredConfig(budget=float(arguments.budget or 0)),
    )
    if arguments.refine_text and not arguments.refine:
        raise IceError("--refine-text is for a refinement; give it steps with --refine 300, or leave it out")
    refinement = RefinementConfig(
        arguments.refine or 0, text_encoders=arguments.refine_text, snapshot_every=SNAPSHOT_EVERY
    )
    reading = reading_for(bundled)
    if arguments.reading_noises is not None:
        reading = replace(reading, noises=arguments.reading_noises)
    settings = ExtractionSettings(
        training, refinement=refinement, showing=showing_for(bundled), reading=reading
    )
    return settings, axes


def _source(command: str, arguments: argparse.Namespace) -> dict[str, str]:
    """What going on needs to know of how a run was started; with `clip` where objects were named by one."""
    return {"command": command, **({"dtype": arguments.dtype} if arguments.dtype else {})}


def _retriever(arguments: argparse.Namespace, backbone: Backbone) -> tuple[Retriever, list[str]]:
    """What names the objects, and a note about it for the report."""
    from ice_core.api import load_retriever
    from ice_core.localization.retrieval.dictionary import Vocabulary
    from ice_core.localization.retrieval.towers import download_size

    vocabulary = None
    if arguments.vocabulary:
        vocabulary = Vocabulary.from_file(arguments.vocabulary)
    elif arguments.body_parts:
        vocabulary = Vocabulary.built_in(body_parts=True)
    clip = _clip(arguments, backbone)
    if clip and (size := download_size(clip)):
        print(
            f"note: {clip} names the objects and is downloaded first ({size / 1e9:.1f} GB); --clip takes "
            f"another, such as {CLIPS['clip_l']} (1.7 GB), --labels none",
            file=sys.stderr,
        )
    retriever = load_retriever(backbone, clip, vocabulary)
    centred = {
        "none": "not centred",
        "image_mean": "centred on the model's image mean",
        "photographs": "centred on the mean of scikit-image's photographs",
    }[retriever.centred_by]
    words = len(retriever.vocabulary.words)
    return retriever, [f"objects named by {retriever.model.name} out of {words} words; pictures {centred}"]


def _clip(arguments: argparse.Namespace, backbone: Backbone) -> str | None:
    """What names the objects, as it is asked for; None for the bundled model's own."""
    from ice_core.api import usual_clip

    given: str | None = arguments.clip
    return given or usual_clip(backbone)


def _folder_name(path: Path) -> str:
    """A picture's name without what a shell or a prompt would trip over."""
    return re.sub(r"[^\w.-]+", "-", path.stem).strip(".-") or "picture"


def _output_folder(wanted: Path, taken: Sequence[Path] = ()) -> Path:
    """A folder where no result would be overwritten; says so when it is another than was asked for."""
    out = free_folder(wanted, OUTPUTS, taken)
    check_tensor_folder(out)
    if out.name != wanted.resolve().name:
        print(f"note: {wanted} is taken, writing to {out}", file=sys.stderr)
    return out


def _follow(events: Generator[RunEvent, None, Report], out: Path) -> Report:
    """Run to the end, showing progress and saving previews.

    An interruption comes out with what is left of the run and how to go on.
    """
    from ice_core.figures.previews import captioned
    from ice_core.files.images import save_png, to_pil
    from ice_core.run.events import Preview, Progress
    from ice_core.run.pipeline import finish

    try:
        with progress_display() as show:

            def tell(event: RunEvent) -> None:
                if isinstance(event, Progress):
                    show(event)
                elif isinstance(event, Preview):
                    picture = captioned([to_pil(x) for x in event.pictures], event.keys, event.line)
                    save_png(picture, out / "previews" / f"step-{event.step:05d}.png")

            return finish(events, tell)
    except KeyboardInterrupt:
        if not (out / "run.json").exists():
            raise KeyboardInterrupt("nothing was written") from None
        learned = (out / "training.safetensors").exists()
        kept = f"what was learned so far is in {out}" if learned else "what was found is kept"
        raise KeyboardInterrupt(f"{kept}; go on with: ice extract --resume {shlex.quote(str(out))}") from None


def _print_result(report: Report, out: Path) -> None:
    for note in report.notes:
        print(f"note: {note}")
    for concept in report.concepts:
        print(f"{concept.key}: score {concept.score:.2f}, {concept.area_share:.1%} of the picture")
    print(f"embeddings:    {out / 'embeddings'}")
    print(f"concept set:   {out / report.concept_set}")
    if report.lora:
        print(f"LoRA:          {out / report.lora}")
    print(f"contact sheet: {out / report.pictures['sheet']}")
