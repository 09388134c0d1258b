"""The host's CLIP_VISION and CLIP as an image and a text tower of one space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ice_core.errors import IceError

from .weights import fingerprint

_TEXTS_AT_ONCE = 64


class ConnectedTowers:
    """The host's CLIP_VISION with the text encoder of a checkpoint that was trained beside it.

    ViT-H/14 goes with the encoder of SD 2.x, ViT-bigG/14 with the larger one of SDXL. Checkpoints of
    SD 1.x left the projection into the common space behind. Raises IceError for other pairs, which says
    `remedy`: what a user can do instead.
    """

    _KEYS = ("h", "g")

    scale = 100.0
    """Where open_clip stops the learned one, which the host does not keep."""

    def __init__(self, clip_vision: Any, clip: Any, remedy: str) -> None:
        self._vision, self._clip, self._remedy = clip_vision, clip.clone(), remedy
        module = clip.cond_stage_model
        keys = [key for key in self._KEYS if hasattr(module, f"clip_{key}")]
        if not keys:
            there = ", ".join(sorted(clip.tokenize(""))) or "none"
            raise IceError(
                f"the connected CLIP (text encoders: {there}) has no projection into the space that it "
                f"shares with CLIP_VISION; only SD 2.x and SDXL checkpoints have one: {remedy}"
            )
        self._key = keys[0]
        self._encoder = getattr(module, f"clip_{self._key}")
        size = int(clip_vision.image_size)
        made = self.encode_images(torch.zeros(1, 3, size, size)).shape[1]
        wanted = len(self._encoder.transformer.text_projection.weight)
        if made != wanted:
            raise IceError(
                f"CLIP_VISION makes embeddings of {made} numbers, the text encoder clip_{self._key} of "
                f"{wanted}: they do not belong together; load ViT-H/14 for SD 2.x or ViT-bigG/14 for SDXL, "
                f"or {remedy}"
            )

    @property
    def name(self) -> str:
        return f"the connected CLIP (clip_{self._key})"

    @property
    def fingerprint(self) -> str:
        """Of the text tower alone: what is cached are the embeddings of words."""
        return fingerprint([self._clip.patcher])

    def encode_images(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in 0..1 -> unit embeddings [B, D], on the CPU."""
        # Squeezed, not cropped: Stage One must see what lies near the border.
        embedded = self._vision.encode_image(images.movedim(1, -1), crop=False)["image_embeds"]
        if embedded is None:
            raise IceError(f"the connected CLIP_VISION is no CLIP: {self._remedy}")
        return _unit(embedded.detach())

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts -> unit embeddings [B, D], on the CPU; only the beginning of a long one is read."""
        clip = self._clip
        clip.cond_stage_model.reset_clip_options()
        try:
            clip.load_model()
            clip.cond_stage_model.set_clip_options(
                {"execution_device": clip.patcher.load_device, "projected_pooled": True}
            )
            parts = [
                _unit(self._encoder.encode([self._ids(text) for text in texts[i : i + _TEXTS_AT_ONCE]])[1])
                for i in range(0, len(texts), _TEXTS_AT_ONCE)
            ]
        finally:
            clip.cond_stage_model.reset_clip_options()
        return torch.cat(parts)

    def _ids(self, text: str) -> list[Any]:
        """Padded ids of a text's first section; parentheses are no weights."""
        escaped = text.replace("(", "\\(").replace(")", "\\)")
        return [entry[0] for entry in self._clip.tokenize(escaped)[self._key][0]]


def _unit(features: Tensor) -> Tensor:
    return normalize(features.float(), dim=-1).cpu()
