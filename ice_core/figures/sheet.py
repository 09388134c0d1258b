"""The contact sheet: a whole result on one page, for a person who looks before reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from ice_core.concepts import Concept
from ice_core.figures.compositions import Composition, composition_panel
from ice_core.figures.lettering import LINE, contain, heading, small
from ice_core.figures.pictures import overlay
from ice_core.figures.plots import loss_plot
from ice_core.figures.rows import GAP, TILE, Row, concept_row
from ice_core.files.images import to_pil

_MARGIN, _OPENING, _BETWEEN = 36, 68, 30


def contact_sheet(
    image: Tensor,
    concepts: Sequence[Concept],
    rows: Sequence[Row],
    losses: Mapping[str, Sequence[float]],
    switch: int,
    title: str,
    settings: str,
    refinement: int | None = None,
    compositions: Sequence[Composition] = (),
) -> Image.Image:
    """Everything at a glance: title, input | what was found | losses, what people come for: the concepts put
    together, and one row per concept.

    switch, refinement: where the losses' phases begin, see `loss_plot`.
    """
    drawn = [concept_row(row) for row in rows]
    width = max([5 * (TILE + GAP) - GAP, *(row.width for row in drawn)])
    panel = (width - 2 * GAP) // 7 * 2
    height, aspect = 440, image.shape[-1] / image.shape[-2]
    height = min(height, max(260, round(panel / aspect)))
    plot_width = width - 2 * (panel + GAP)
    panels = (
        ("input", contain(to_pil(image), (panel, height))),
        ("what was found", overlay(image, concepts, (panel, height))),
        ("losses", loss_plot(losses, switch, (plot_width, height), refinement)),
    )
    head, label, between = 84, 30, 34
    together = [composition_panel(composition, width) for composition in compositions]
    opening = between + _OPENING if together else 0
    total = head + label + height + sum(between + row.height for row in drawn) + opening
    total += sum(part.height for part in together) + _BETWEEN * max(0, len(together) - 1)
    sheet = Image.new("RGB", (width + 2 * _MARGIN, total + 2 * _MARGIN), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    heading(draw, (_MARGIN, _MARGIN + 16), title, 30, width)
    small(draw, (_MARGIN, _MARGIN + 51), settings, 15, width)
    for i, (name, picture) in enumerate(panels):
        x, y = _MARGIN + i * (panel + GAP), _MARGIN + head
        heading(draw, (x, y + 12), name, 16, panel)
        sheet.paste(picture, (x, y + label))
    y = _MARGIN + head + label + height
    if together:
        draw.line((_MARGIN, y + between // 2, _MARGIN + width, y + between // 2), fill=LINE)
        y += between
        heading(draw, (_MARGIN, y + 16), "put together", 26, width)
        small(
            draw, (_MARGIN, y + 46), "the look of one on the shape of another, three noises each", 15, width
        )
        y += _OPENING
    for i, part in enumerate(together):
        y += _BETWEEN * bool(i)
        sheet.paste(part, (_MARGIN, y))
        y += part.height
    for row in drawn:
        draw.line((_MARGIN, y + between // 2, _MARGIN + width, y + between // 2), fill=LINE)
        y += between
        sheet.paste(row, (_MARGIN, y))
        y += row.height
    return sheet
