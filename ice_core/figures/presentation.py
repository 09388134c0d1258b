"""Draws what was learned with the model itself, and writes the pictures of a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ice_core.composition import written
from ice_core.concepts import Concept, ConceptSet, LearnedConcept, LearnedConcepts, as_people_write
from ice_core.evaluation.quality import PICTURES, Quality
from ice_core.figures.compositions import PLAIN, Composition, Part
from ice_core.figures.lettering import listed
from ice_core.figures.pictures import color_of, masked_crop, overlay
from ice_core.figures.plots import loss_plot
from ice_core.figures.rows import Row, Tile, Transfer, concept_row
from ice_core.figures.sheet import contact_sheet
from ice_core.figures.shots import CompositionShots, ConceptShots, TransferShots, plan
from ice_core.files.images import data_uri, save_png, to_pil
from ice_core.files.paths import safe_path
from ice_core.model.backbone import Backbone
from ice_core.model.lora import Lora
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.version import package_version


@dataclass(frozen=True)
class ShownConcept:
    """A concept's row, and its look on other things; prompts by caption, as `ice compose` takes them;
    thumbnails by token name; quality by axis, where it was judged."""

    row: Row
    compositions: tuple[Composition, ...]
    prompts: Mapping[str, str]
    thumbnails: Mapping[str, str]
    quality: Mapping[str, Quality]


Judge = Callable[[LearnedConcept, str, str, Tensor], Quality | None]
"""Says of an object, one of its axes, another thing and pictures [B, 3, H, W] how the property came out."""


def draw_rows(
    backbone: Backbone,
    image: Tensor,
    concepts: ConceptSet,
    learned: LearnedConcepts,
    config: SamplingConfig,
    seed: int,
    words: Sequence[str],
    lora: Lora | None = None,
    judge: Judge | None = None,
) -> Iterator[ShownConcept]:
    """One row per concept of the set, in its order; each starts from the same noise.

    image: [3, H, W] in 0..1, what masked crops are cut from; words: plain names of things that properties
    are shown on where the picture has no other object; lora: what refinement learned, if it ran; judge:
    without one, a single picture of each property on another thing is drawn and nothing is said of it.
    """
    by_key = {concept.key: concept for concept in learned.concepts}
    every = [by_key[concept.key] for concept in concepts.concepts]
    sources = {
        concept.key: (masked_crop(image, concept), color_of(i)) for i, concept in enumerate(concepts.concepts)
    }
    for concept, item in zip(concepts.concepts, every, strict=True):
        shots = plan(item, every, words, PICTURES if judge else 1)
        drawn = _drawn(backbone, shots, config, seed, lora)
        pictures = {key: to_pil(picture) for key, picture in drawn.items()}
        quality = _judged(judge, item, shots, drawn) if judge else {}
        crop, color = sources[concept.key]
        tiles = [Tile("masked crop", crop, "from the input")]
        tiles += [
            Tile(caption, pictures[shot.key], written(shot.prompt))
            for caption, shot in shots.showcase.items()
        ]
        subtitle = f"score {concept.score:.0%} · {concept.area:.1%} of the picture"
        if concept.key != concept.label:
            subtitle = f"{concept.label} · {subtitle}"
        if item.readings:
            subtitle += f" · read as {_read_as(item)}"
        transfers = tuple(_transfer(shown, pictures, quality.get(shown.axis)) for shown in shots.transfers)
        compositions = tuple(_composition(item, shown, pictures, sources) for shown in shots.compositions)
        prompts = {caption: written(shot.prompt) for caption, shot in shots.showcase.items()}
        prompts |= {shown.caption: shown.detail for shown in transfers}
        prompts |= {shown.caption: shown.prompt for shown in compositions}
        thumbnails = {item.key: data_uri(pictures[shots.showcase["whole object"].key])}
        thumbnails |= {item.instance.name: data_uri(crop)} if item.instance else {}
        thumbnails |= {item.object.name: data_uri(pictures[shots.showcase["object token"].key])}
        thumbnails |= {
            token.name: data_uri(pictures[shots.showcase[axis].key])
            for axis, token in item.intrinsics.items()
        }
        row = Row(concept.key, subtitle, color, tuple(tiles), transfers)
        yield ShownConcept(row, compositions, prompts, thumbnails, quality)


def _read_as(item: LearnedConcept) -> str:
    """ "striped 98%, red 93%; no material fits"."""
    fitting = [r for axis in as_people_write(tuple(item.readings)) if (r := item.readings[axis]).value]
    words = ", ".join(f"{r.value} {r.candidates[0].weight:.0%}" for r in fitting)
    missing = [axis for axis, r in item.readings.items() if r.value is None and r.candidates]
    return "; ".join(part for part in (words, f"no {' or '.join(missing)} fits" * bool(missing)) if part)


Pictures = Mapping[tuple[str, int], Image.Image]
"""By `Shot.key`."""


def _drawn(
    backbone: Backbone, shots: ConceptShots, config: SamplingConfig, seed: int, lora: Lora | None
) -> dict[tuple[str, int], Tensor]:
    """All pictures of one object, [3, H, W] in 0..1, drawn together."""
    every = shots.every
    drawn = sample(
        backbone,
        [shot.prompt for shot in every],
        config,
        torch.Generator().manual_seed(seed),
        lora=lora,
        noises=[shot.noise for shot in every],
    )
    return {shot.key: picture for shot, picture in zip(every, drawn, strict=True)}


def _judged(
    judge: Judge, item: LearnedConcept, shots: ConceptShots, drawn: Mapping[tuple[str, int], Tensor]
) -> dict[str, Quality]:
    """By axis, those that can be judged."""
    said = {
        shown.axis: judge(
            item, shown.axis, shown.other, torch.stack([drawn[shot.key] for shot in shown.withs])
        )
        for shown in shots.transfers
    }
    return {axis: one for axis, one in said.items() if one is not None}


def _transfer(shots: TransferShots, pictures: Pictures, quality: Quality | None) -> Transfer:
    first = shots.withs[0]
    return Transfer(
        f"{shots.axis} on {_with_article(shots.other)}",
        pictures[first.key],
        pictures[shots.without.key],
        written(first.prompt),
        quality.grade if quality else None,
    )


def _composition(
    giver: LearnedConcept,
    shots: CompositionShots,
    pictures: Pictures,
    sources: Mapping[str, tuple[Image.Image, tuple[int, int, int]]],
) -> Composition:
    look = listed(shots.axes)
    neighbour = shots.neighbour
    crop, color = sources[neighbour.key] if neighbour else (None, PLAIN)
    thing = f"the {shots.thing}" if neighbour else _with_article(shots.thing)
    return Composition(
        f"{thing}, in the {giver.key}'s {look}",
        written(shots.shots[0].prompt),
        Part(giver.key, f"{look} of the {giver.key}", *sources[giver.key]),
        Part(shots.thing, thing, crop, color),
        tuple(pictures[shot.key] for shot in shots.shots),
    )


def _with_article(word: str) -> str:
    return f"{'an' if word[:1].lower() in tuple('aeiou') else 'a'} {word}"


def headline(
    learned: LearnedConcepts, where: str, seconds: float, refinement_steps: int = 0, lora: Lora | None = None
) -> tuple[str, str]:
    """Title and line of settings for a contact sheet. where: "a picture"; seconds: spent so far."""
    count = len(learned.concepts)
    settings = (
        f"base: {learned.base_name}",
        f"axes: {', '.join(learned.axes)}",
        f"{learned.steps} steps",
        *([f"{refinement_steps} steps of refinement, rank {lora.rank}"] if lora else []),
        f"seed {learned.seed}",
        f"{seconds:.0f} s",
        f"ICE {package_version()}",
    )
    return f"{count} concept{'s' if count > 1 else ''} in {where}", "   ·   ".join(settings)


def sheet_of(
    image: Tensor,
    concepts: Sequence[Concept],
    shown: Sequence[ShownConcept],
    losses: Mapping[str, Sequence[float]],
    switch: int,
    title: str,
    settings: str,
    refinement: int | None = None,
) -> Image.Image:
    """`contact_sheet` of all that was drawn."""
    rows = [one.row for one in shown]
    compositions = [composition for one in shown for composition in one.compositions]
    return contact_sheet(image, concepts, rows, losses, switch, title, settings, refinement, compositions)


def write_pictures(
    folder: Path,
    image: Tensor,
    concepts: Sequence[Concept],
    shown: Sequence[ShownConcept],
    losses: Mapping[str, Sequence[float]],
    switch: int,
    title: str,
    settings: str,
    refinement: int | None = None,
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Write overlay, loss plot, contact sheet and rows -> paths by what they show, row paths by key.

    switch, refinement: where the losses' phases begin, see `loss_plot`.
    """
    drawn = {one.row.title: concept_row(one.row) for one in shown}
    row_files = {key: save_png(row, safe_path(folder / "rows", f"{key}.png")) for key, row in drawn.items()}
    sheet = sheet_of(image, concepts, shown, losses, switch, title, settings, refinement)
    pictures = {
        "overlay": save_png(overlay(image, concepts), folder / "overlay.png"),
        "losses": save_png(loss_plot(losses, switch, refinement=refinement), folder / "losses.png"),
        "sheet": save_png(sheet, folder / "sheet.png"),
    }
    return pictures, row_files
