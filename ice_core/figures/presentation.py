"""Draws what was learned with the model itself, and writes the pictures of a result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ice_core.composition import showcase_prompts, written
from ice_core.concepts import Concept, ConceptSet, LearnedConcepts
from ice_core.figures.pictures import (
    Row,
    Tile,
    color_of,
    concept_row,
    contact_sheet,
    loss_plot,
    masked_crop,
    overlay,
)
from ice_core.files.images import data_uri, save_png, to_pil
from ice_core.files.paths import safe_path
from ice_core.model.backbone import Backbone
from ice_core.model.lora import Lora
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.version import package_version


@dataclass(frozen=True)
class ShownConcept:
    """A concept's row; prompts by caption, as `ice compose` takes them; thumbnails by token name."""

    row: Row
    prompts: Mapping[str, str]
    thumbnails: Mapping[str, str]


def draw_rows(
    backbone: Backbone,
    image: Tensor,
    concepts: ConceptSet,
    learned: LearnedConcepts,
    config: SamplingConfig,
    seed: int,
    lora: Lora | None = None,
) -> Iterator[ShownConcept]:
    """One row per concept of the set, in its order; each starts from the same noise.

    image: [3, H, W] in 0..1, what masked crops are cut from; lora: what refinement learned, if it ran.
    """
    by_key = {concept.key: concept for concept in learned.concepts}
    for index, concept in enumerate(concepts.concepts):
        item = by_key[concept.key]
        prompts = showcase_prompts(item)
        generator = torch.Generator().manual_seed(seed)
        shown = [prompt for _, prompt in prompts]
        drawn = [to_pil(x) for x in sample(backbone, shown, config, generator, lora=lora)]
        crop = masked_crop(image, concept)
        tiles = [Tile("masked crop", crop, "from the input")]
        tiles += [
            Tile(caption, picture, written(prompt))
            for (caption, prompt), picture in zip(prompts, drawn, strict=True)
        ]
        subtitle = f"score {concept.score:.0%} · {concept.area:.1%} of the picture"
        if concept.key != concept.label:
            subtitle = f"{concept.label} · {subtitle}"
        pictures = dict(zip((caption for caption, _ in prompts), drawn, strict=True))
        thumbnails = {item.instance.name: data_uri(crop)} if item.instance else {}
        thumbnails |= {item.object.name: data_uri(pictures["object token"])}
        thumbnails |= {token.name: data_uri(pictures[axis]) for axis, token in item.intrinsics.items()}
        yield ShownConcept(
            Row(concept.key, subtitle, color_of(index), tuple(tiles)),
            {caption: written(prompt) for caption, prompt in prompts},
            thumbnails,
        )


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


def write_pictures(
    folder: Path,
    image: Tensor,
    concepts: Sequence[Concept],
    rows: Sequence[Row],
    losses: Mapping[str, Sequence[float]],
    switch: int,
    title: str,
    settings: str,
    refinement: int | None = None,
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Write overlay, loss plot, contact sheet and rows -> paths by what they show, row paths by key.

    switch, refinement: where the losses' phases begin, see `loss_plot`.
    """
    drawn = {row.title: concept_row(row) for row in rows}
    row_files = {key: save_png(row, safe_path(folder / "rows", f"{key}.png")) for key, row in drawn.items()}
    sheet = contact_sheet(image, concepts, rows, losses, switch, title, settings, refinement)
    pictures = {
        "overlay": save_png(overlay(image, concepts), folder / "overlay.png"),
        "losses": save_png(loss_plot(losses, switch, refinement=refinement), folder / "losses.png"),
        "sheet": save_png(sheet, folder / "sheet.png"),
    }
    return pictures, row_files
