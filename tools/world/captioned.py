"""Batches of captions for the U-Net, written while it trains."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ice_core.world.captions import caption, mixed
from ice_core.world.scenes import Scene
from world.tokens import Tokens, plain, tokenize

CAPTION_DROPOUT = 0.1
MIXED_CAPTIONS, MIXED_WORDS = 0.5, 0.6
"""Share of captions with mixtures of words in them, and of their property words that are mixed."""


@dataclass(frozen=True)
class Captioned(IterableDataset[tuple[Tensor, Tokens]]):
    """Without end: indices [batch] of scenes, and a caption of each.

    Of several workers each has scenes of its own, whose words it then knows.
    """

    scenes: Sequence[Scene]
    batch: int
    seed: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tokens]]:
        worker = get_worker_info()
        own, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        rng = random.Random(self.seed * workers + own)
        mine = range(own, len(self.scenes), workers)
        while True:
            picked = [rng.choice(mine) for _ in range(self.batch)]
            said = []
            for scene in (self.scenes[i] for i in picked):
                text = caption(scene, rng)
                if rng.random() < CAPTION_DROPOUT:
                    text = plain("")
                elif rng.random() < MIXED_CAPTIONS:
                    text = mixed(text, scene, rng, MIXED_WORDS)
                said.append(text)
            yield torch.tensor(picked), tokenize(said)


def captioned_batches(
    scenes: Sequence[Scene], batch: int, seed: int, workers: int
) -> Iterator[tuple[Tensor, Tokens]]:
    """Captioned scenes, by `workers` processes (0: by this one); the same arguments, the same batches."""
    return iter(
        DataLoader(Captioned(scenes, batch, seed), batch_size=None, num_workers=workers, prefetch_factor=4)
        if workers
        else Captioned(scenes, batch, seed)
    )
