"""How the objects of a picture were found, round by round: what was looked at, which words came to mind, what
was found and how much of the picture is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw

from ice_core.concepts import Concept
from ice_core.figures.lettering import GREY, INK, LINE, PAPER, font, framed, heading, listed, shorten, small
from ice_core.figures.pictures import color_of, overlay
from ice_core.files.images import to_pil
from ice_core.localization.loop import LocalizationRound

MOST_WORDS = 6
_MARGIN, _GAP, _TILE, _WORDS = 24, 24, 190, 330
_HEAD = 64
_WIDTH = 2 * _MARGIN + 2 * _TILE + _WORDS + 2 * _GAP


def rounds_figure(rounds: Sequence[LocalizationRound]) -> Image.Image:
    """A row per round of Stage One. Bars are the CLIP similarities of the words that were considered, the
    longest of the round at full length; the word that was taken is bold."""
    row = _TILE + 52
    canvas = Image.new("RGB", (_WIDTH, _HEAD + len(rounds) * row + 28), PAPER)
    draw = ImageDraw.Draw(canvas)
    lefts = (_MARGIN, _MARGIN + _TILE + _GAP, _MARGIN + _TILE + _WORDS + 2 * _GAP)
    for left, text in zip(lefts, ("looked at", "words considered", "found so far"), strict=True):
        heading(draw, (left, _HEAD - 24), text, 16, _TILE)
    for n, step in enumerate(rounds):
        top = _HEAD + n * row
        framed(canvas, to_pil(step.seen), (lefts[0], top), _TILE)
        _words(draw, step, (lefts[1], top))
        concepts = step.result.concepts
        framed(canvas, overlay(step.result.image, concepts), (lefts[2], top), _TILE)
        line = f"round {step.index}: {_outcome(step)}; {step.result.unexplained:.0%} of the picture is left"
        small(draw, (lefts[0], top + _TILE + 14), line, 13, _WIDTH - 2 * _MARGIN)
        if n < len(rounds) - 1:
            y = top + _TILE + 34
            draw.line((_MARGIN, y, _WIDTH - _MARGIN, y), fill=LINE)
    if rounds and rounds[-1].ended:
        text = f"It ended because {rounds[-1].ended}."
        draw.text((_MARGIN, canvas.height - 30), text, fill=INK, font=font(13, True), anchor="lm")
    return canvas


def considered(step: LocalizationRound) -> list[dict[str, Any]]:
    """The words of a round, best first, with their similarity to what was looked at and their definition
    (None where the retriever gives none)."""
    return [
        {
            "label": c.label,
            "similarity": getattr(c, "similarity", None),
            "definition": getattr(c, "definition", None),
        }
        for c in step.candidates
    ]


def _outcome(step: LocalizationRound) -> str:
    names = [_with_finer(concept) for concept in step.found]
    return f"{listed(names)} found" if names else "nothing new found"


def _with_finer(concept: Concept) -> str:
    """ "dog (golden retriever 62%)" where a finer name is known."""
    if not concept.finer:
        return concept.key
    return f"{concept.key} ({concept.finer[0].value} {concept.finer[0].weight:.0%})"


def _words(draw: ImageDraw.ImageDraw, step: LocalizationRound, at: tuple[int, int]) -> None:
    words = considered(step)
    if not words:
        small(draw, (at[0], at[1] + 14), "no word fits", 14, _WORDS)
    most = max((word["similarity"] or 0 for word in words), default=0) or 1
    name, bar = 120, _WORDS - 180
    places = {concept.key: n for n, concept in enumerate(step.result.concepts)}
    taken = color_of(places[step.found[0].key]) if step.found else GREY
    for n, word in enumerate(words[:MOST_WORDS]):
        y = at[1] + 14 + n * 28
        best = word["label"] == step.label
        face = font(14, best)
        draw.text((at[0], y), shorten(word["label"], face, name - 8), fill=INK, font=face, anchor="lm")
        if word["similarity"] is not None:
            length = max(1.0, bar * max(0.0, word["similarity"]) / most)
            left = at[0] + name
            draw.rectangle((left, y - 7, left + length, y + 7), fill=taken if best else LINE)
            small(draw, (left + length + 8, y), f"{word['similarity']:.2f}", 12, 60)
    if len(words) > MOST_WORDS:
        small(draw, (at[0], at[1] + 14 + MOST_WORDS * 28), f"and {len(words) - MOST_WORDS} more", 12, _WORDS)
