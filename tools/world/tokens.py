"""Captions as CLIP token ids, with the owner of every token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import open_clip
import torch
from torch import Tensor

from ice_core.world.captions import BACKGROUND, Caption, Word
from ice_core.world.scenes import MAX_OBJECTS

CONTEXT, START, END = 77, 49406, 49407
_TOKENIZER = open_clip.SimpleTokenizer()


@lru_cache(maxsize=4096)
def pieces(word: str) -> tuple[int, ...]:
    """Token ids of one word."""
    return tuple(_TOKENIZER.encode(word))


@dataclass(frozen=True)
class Tokens:
    """ids [B, 77], padded with the end token as Stable Diffusion 1 does; owners [B, 77, 4]: which of
    the objects 0..2 and the ground (3) each token speaks of, 0 or 1.

    Embedding rows that stand mixed in a place: mixed_at [M, 2], batch row and position; mixed_ids [M, P] and
    mixed_weights [M, P], the tokens and their weights, 0 where there are fewer than P.
    """

    ids: Tensor
    owners: Tensor
    mixed_at: Tensor
    mixed_ids: Tensor
    mixed_weights: Tensor

    def to(self, device: torch.device) -> Tokens:
        return Tokens(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))


def tokenize(captions: Sequence[Caption]) -> Tokens:
    ids = torch.full((len(captions), CONTEXT), END, dtype=torch.long)
    owners = torch.zeros(len(captions), CONTEXT, MAX_OBJECTS + 1)
    ids[:, 0] = START
    places: list[tuple[int, int]] = []
    mixes: list[list[tuple[int, float]]] = []
    for row, text in enumerate(captions):
        at = 1
        for word in text.words:
            for piece in pieces(word.text):
                if at >= CONTEXT - 1:
                    break
                if word.mix:
                    places.append((row, at))
                    mixes.append([(pieces(text)[0], weight) for text, weight in word.mix])
                ids[row, at] = piece
                for owner in word.owners:
                    owners[row, at, MAX_OBJECTS if owner == BACKGROUND else owner] = 1
                at += 1
    most = max(map(len, mixes), default=0)
    padded = torch.tensor([mix + [(0, 0.0)] * (most - len(mix)) for mix in mixes], dtype=torch.float64)
    of_ids, weights = padded.view(len(mixes), most, 2).unbind(-1)
    return Tokens(ids, owners, torch.tensor(places).view(-1, 2).long(), of_ids.long(), weights.float())


def plain(text: str) -> Caption:
    """A text that claims nothing, as a caption."""
    return Caption(tuple(Word(word) for word in text.split()), (), None)


def empty() -> Tokens:
    """The empty prompt, [1, 77]: what guidance steers away from."""
    return tokenize([plain("")])
