"""A fake model that finds colours by their words, pictures for it, and a retriever by a script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from fakes import CONTEXT, FakeBackbone
from torch import Tensor

from ice_core.concepts import ConceptSet
from ice_core.model.attention import AttentionRecorder
from ice_core.model.backbone import Prompt, TextFeatures
from ice_core.model.lora import Lora

MEANS = {"ball": (1.0, 0, 0), "cube": (0, 0, 1.0), "background": (0, 1.0, 0), "things": (0.4, 0.4, 0.4)}
"""Colour that a word attends to; other words attend to nothing in particular."""


class ColorWords(FakeBackbone):
    """Cross-attention finds places of a word's colour, the last four numbers of its place in the context."""

    def encode_prompts(
        self, prompts: Sequence[Prompt], contexts: int | None = None, lora: Lora | None = None
    ) -> TextFeatures:
        text = super().encode_prompts(prompts, contexts)
        wanted = torch.zeros(len(prompts), CONTEXT, 4)
        for row, prompt in enumerate(prompts):
            for part, columns in zip(prompt.parts, text.columns[row], strict=True):
                if part in MEANS:
                    wanted[row, columns, :3] = torch.tensor(MEANS[str(part)]) * 2 - 1
        return replace(text, context=torch.cat([text.context, wanted], -1))

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        text: TextFeatures,
        recorder: AttentionRecorder | None = None,
        lora: Lora | None = None,
    ) -> Tensor:
        size = (noisy.shape[2], noisy.shape[3])
        rows, wanted = text.context[..., :-4], text.context[..., -4:]
        if recorder is not None:
            x = noisy.flatten(2).transpose(1, 2)[:, None]
            recorder.record("self", size, x, x, 3.0)
            recorder.record("cross", size, x, wanted[:, None], 1.0)
        return super().predict(noisy, timesteps, replace(text, context=rows), lora=lora)


@dataclass(frozen=True)
class Candidate:
    label: str


class Scripted:
    """Offers the words of a list that were not used, and remembers what it was shown."""

    def __init__(self, *labels: str) -> None:
        self.labels = labels
        self.images: list[Tensor] = []
        self.used: list[tuple[str, ...]] = []

    def retrieve(self, image: Tensor, used: Sequence[str] = ()) -> list[Candidate]:
        self.images.append(image.clone())
        self.used.append(tuple(used))
        return [Candidate(label) for label in self.labels if label not in used]


def scene(*boxes: tuple[str, int, int, int, int]) -> Tensor:
    """A green picture [3, 96, 128] with boxes (word, top, left, bottom, right) of the word's colour."""
    image = torch.zeros(3, 96, 128)
    image[1] = 1
    for word, top, left, bottom, right in boxes:
        image[:, top:bottom, left:right] = torch.tensor(MEANS[word])[:, None, None]
    return image


BALL, CUBE = ("ball", 16, 8, 64, 48), ("cube", 32, 72, 80, 120)
SMALL_BALL = ("ball", 56, 88, 88, 120)


def box(name: tuple[str, int, int, int, int]) -> Tensor:
    mask = torch.zeros(96, 128, dtype=torch.bool)
    mask[name[1] : name[3], name[2] : name[4]] = True
    return mask


def keys(result: ConceptSet) -> list[str]:
    return [concept.key for concept in result.concepts]
