"""What `import ice_core` offers: open a model, take a picture apart, draw with what was learned."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import torch
from PIL import Image
from torch import Tensor

from ice_core.attributes.axes import known_axes, parse_axes
from ice_core.attributes.reading import ReadingConfig
from ice_core.attributes.values import Axis
from ice_core.composition import parse_prompt
from ice_core.concepts import ConceptSet, LearnedConcepts
from ice_core.errors import IceError
from ice_core.files.embeddings import open_concepts
from ice_core.files.images import as_image, load_mask, to_pil
from ice_core.files.lora import load_lora
from ice_core.localization.naming import Retrieves
from ice_core.localization.retrieval.dictionary import Vocabulary
from ice_core.localization.retrieval.retriever import Retriever
from ice_core.localization.retrieval.towers import ImageTextModel, open_towers
from ice_core.model.backbone import Backbone, Token, all_lora_targets
from ice_core.model.lora import Lora
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.run import pipeline
from ice_core.run.defaults import clip_for
from ice_core.run.events import RunEvent, Trained
from ice_core.run.folder import RunFolder
from ice_core.run.report import Report
from ice_core.run.settings import ExtractionSettings, ShowingConfig
from ice_core.standalone.checkpoint import load_checkpoint
from ice_core.standalone.devices import dtype_named, usable_device
from ice_core.world.bundled import (
    MODEL_FILE,
    is_bundled,
    load_bundled_towers,
    require_weights,
    world_axes,
    world_vocabulary,
)
from ice_core.world.scenes import AXES

File: TypeAlias = str | Path
Picture: TypeAlias = File | Image.Image | Tensor
Learned: TypeAlias = LearnedConcepts | Token | File
Events: TypeAlias = Generator[RunEvent, None, Report]


@dataclass(frozen=True)
class Extraction:
    """A picture taken apart.

    folder: where everything is written; found: the objects with their masks, at the size the model works
    at; learned: their tokens; lora: what refinement learned, where it ran; report: scores, boxes, files,
    seconds.
    """

    folder: Path
    found: ConceptSet
    learned: LearnedConcepts
    lora: Lora | None
    report: Report


def load_model(
    path: File | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    gradient_checkpointing: bool = False,
) -> Backbone:
    """Open a Stable Diffusion 1.x, 2.x or XL checkpoint, or without a path the small model that comes along.

    device: "cpu", "cuda", "mps", ..., or "auto" for the accelerator that is there; dtype: "float32",
    "bfloat16", "float16", or "auto" for bfloat16 where an accelerator has it, else float32. Tokens, losses
    and optimizer are float32 with all of them. gradient_checkpointing: training computes the U-Net's
    activations twice instead of keeping them, which takes less memory and more time. Raises IceError for a
    file or device that cannot be used.
    """
    where = usable_device(device)
    file = require_weights(MODEL_FILE) if path is None else Path(path)
    model = load_checkpoint(file, where, dtype_named(dtype, where))
    if gradient_checkpointing:
        model.checkpoint_gradients()
    return model


def showing_for(bundled: bool) -> ShowingConfig:
    """Things that a model can draw, and words for properties: the rendered world's for the bundled model."""
    return ShowingConfig(AXES["kind"], AXES) if bundled else ShowingConfig()


def reading_for(bundled: bool) -> ReadingConfig:
    """How properties are read: the bundled model is asked where its CLIP is unsure, which was measured on it
    and takes less than a second per object. With larger models that takes many times as long, so they are
    asked by `ReadingConfig(noises=8)` only."""
    return ReadingConfig(noises=8 if bundled else 0)


def usual_clip(model: Backbone) -> str | None:
    """What names objects where nobody says otherwise: the CLIP beside the model's text encoder, as
    open_clip's NAME/WEIGHTS (`ice_core.run.defaults.CLIPS`); None for the bundled model, which has its
    own."""
    return None if is_bundled(model) else clip_for(model.encoders)


def load_retriever(
    model: Backbone, clip: str | None = None, vocabulary: Vocabulary | None = None
) -> Retriever:
    """What names the objects of a picture.

    clip: open_clip's NAME/WEIGHTS, downloaded on first use, or NAME=FILE; vocabulary: words that it may
    use. Without them the bundled model's own CLIP and words for the bundled model, else `usual_clip` and the
    built-in words for what photographs show. Raises IceError for a CLIP that cannot be opened.
    """
    if (name := clip or usual_clip(model)) is None:
        return Retriever(load_bundled_towers(device=str(model.device)), vocabulary or world_vocabulary())
    towers = open_towers(name, model.device)
    return Retriever(towers, vocabulary or Vocabulary.built_in(), image_mean="photographs")


def axes_for(bundled: bool, texts: Sequence[str], files: bool = True) -> tuple[Axis, ...]:
    """Axes with the values that a model knows words for: "color", "finish=matte|glossy", and, unless `files`
    are kept out, "finish=@finishes.txt" with one value a line.

    The bundled model's are its world's own. Raises IceError for what is no axis.
    """
    return parse_axes(texts, {**known_axes(), **(world_axes() if bundled else {})}, files)


def reading_towers(model: Backbone) -> ImageTextModel | None:
    """What reads the properties of objects where no retriever does: the bundled model's own CLIP."""
    return load_bundled_towers(device=str(model.device)) if is_bundled(model) else None


def extract(
    model: Backbone,
    picture: Picture,
    out: File,
    *,
    labels: Sequence[str] | None = None,
    masks: Sequence[File | Tensor] | None = None,
    retriever: Retrieves | None = None,
    settings: ExtractionSettings | None = None,
    preview_every: int = 0,
    axes: Sequence[str] | None = None,
    overruled: Sequence[str] = (),
) -> Events:
    """Take a picture apart into the folder `out`, as a stream of events (`ice_core.run.events`).

    picture: a file, a PIL picture, or a tensor [3, H, W] in 0..1. labels: the names of its objects; without
    them `retriever` names what is there, by default `load_retriever(model)`. masks: files or [h, w], one per
    label, or named by the retriever; without them the objects are looked for. preview_every: steps between
    pictures on the way. axes: the properties to learn, see `axes_for`, by default the settings'; overruled:
    what an object is like where it is misread, such as "vase.material=ceramic".

    Work is done when an event is asked for. Closing the stream, or an exception, keeps what was learned so
    far, and `resume` goes on. Raises IceError for what cannot be used, and when `out` holds a run already.
    """
    image, notes = as_image(picture)
    settings = settings or ExtractionSettings(showing=showing_for(is_bundled(model)))
    if settings.reading.noises is None:
        usual = reading_for(is_bundled(model)).noises
        settings = replace(settings, reading=replace(settings.reading, noises=usual))
    known = axes_for(is_bundled(model), settings.training.axes if axes is None else axes)
    named = replace(settings.training, axes=tuple(axis.name for axis in known))
    settings = replace(settings, training=named)
    size = (image.shape[1], image.shape[2])
    file = Path(picture) if isinstance(picture, str | Path) else None
    return pipeline.extract(
        model,
        retriever or (None if labels else load_retriever(model)),
        image,
        Path(out),
        settings,
        labels,
        None if masks is None else [_mask(mask, size) for mask in masks],
        title=file.name if file else "a picture",
        source={"picture": str(file)} if file else None,
        notes=notes,
        preview_every=preview_every,
        axes=known,
        overruled=overruled,
        towers=reading_towers(model),
    )


def extract_concepts(
    model: Backbone,
    picture: Picture,
    out: File,
    *,
    labels: Sequence[str] | None = None,
    masks: Sequence[File | Tensor] | None = None,
    retriever: Retrieves | None = None,
    settings: ExtractionSettings | None = None,
    preview_every: int = 0,
    axes: Sequence[str] | None = None,
    overruled: Sequence[str] = (),
    listener: Callable[[RunEvent], None] | None = None,
) -> Extraction:
    """`extract` from beginning to end -> the result. listener: is told every event."""
    trained: list[Trained] = []

    def tell(event: RunEvent) -> None:
        if isinstance(event, Trained):
            trained.append(event)
        if listener is not None:
            listener(event)

    events = extract(
        model, picture, out, labels=labels, masks=masks, retriever=retriever, settings=settings,
        preview_every=preview_every, axes=axes, overruled=overruled,
    )  # fmt: skip
    report = pipeline.finish(events, tell)
    _, found = RunFolder(Path(out)).load_start()
    return Extraction(Path(out), found, trained[-1].learned, trained[-1].lora, report)


def resume(model: Backbone, out: File, preview_every: int = 0, judge: ImageTextModel | None = None) -> Events:
    """Go on with an interrupted run in `out` as a stream of events, to the same numbers as without the break.

    judge: what says how properties came out on other objects, `load_retriever(model).model`; without it
    that is left out. Raises IceError when there is no run, or it was started with another model.
    """
    return pipeline.resume(model, Path(out), preview_every, judge)


def compose(
    model: Backbone,
    prompt: str,
    concepts: Learned | Mapping[str, Learned],
    *,
    count: int = 1,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    lora: Lora | File | None = None,
    settings: SamplingConfig | None = None,
) -> list[Image.Image]:
    """Draw `count` pictures of a prompt such as "a photo of a {ball}", or "a {ball.color} {ball.object}".

    concepts: learned ones, or the folder of an extraction, a concept set, or an embedding's file; a mapping
    names several, {"a": ..., "b": ...}, for "{b.cube.color} {a.ball.object}". size: (height, width) in
    pixels, by default the model's own. lora: from refinement, or its file. Raises IceError for placeholders
    that were not learned, and for tokens or a LoRA of a model of another kind.
    """
    if count < 1:
        raise IceError(f"count is {count}; draw at least 1 picture")
    sources = concepts if isinstance(concepts, Mapping) else {"": concepts}
    parsed = parse_prompt(prompt, {alias: _learned(source) for alias, source in sources.items()}, model)
    if lora is not None:
        lora = lora if isinstance(lora, Lora) else load_lora(Path(lora))
        lora.check(all_lora_targets(model), model.name)
    generator = torch.Generator().manual_seed(seed)
    config = settings or SamplingConfig()
    return [to_pil(x) for x in sample(model, [parsed] * count, config, generator, size, lora=lora)]


def _mask(mask: File | Tensor, size: tuple[int, int]) -> Tensor:
    return mask if isinstance(mask, Tensor) else load_mask(Path(mask), size)[0]


def _learned(source: Learned) -> LearnedConcepts | Token:
    if isinstance(source, LearnedConcepts | Token):
        return source
    return open_concepts(source)
