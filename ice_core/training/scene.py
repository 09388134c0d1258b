"""All that stays the same during training, encoded once: latents, masks and anchors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.concepts import Concept, ConceptSet, unit
from ice_core.errors import IceError
from ice_core.model.attention import AttentionRecorder, Size
from ice_core.model.backbone import Backbone, Prompt
from ice_core.training.config import TrainingConfig
from ice_core.training.transport import cell_distances


@dataclass(frozen=True)
class Subject:
    """One object. mask: [2, 1, h, w], the share of each latent cell that it covers, plain and mirrored;
    focus: the same [2, Q] at the alignment's size (Q = 0 without alignment); anchor: T(label) [P]."""

    key: str
    label: str
    mask: Tensor
    focus: Tensor
    anchor: Tensor


@dataclass(frozen=True)
class Scene:
    """A picture to learn from. latents: [2, C, h, w], plain and mirrored; subjects: sorted by key, so
    that draws do not depend on the order they were found in; words: T(axis word) [K, P]; size: of the
    attention that is aligned, None without; cost: distances between its cells [Q, Q]."""

    latents: Tensor
    subjects: tuple[Subject, ...]
    words: Tensor
    size: Size | None
    cost: Tensor


def check_concepts(backbone: Backbone, concepts: ConceptSet) -> None:
    """Raise IceError for a picture or objects that cannot be trained on."""
    height, width = concepts.image.shape[-2:]
    if height % backbone.multiple or width % backbone.multiple:
        raise IceError(
            f"the picture is {width} x {height}, but {backbone.name} takes sides that are multiples of "
            f"{backbone.multiple}: resize picture and masks first"
        )
    if not concepts.concepts:
        raise IceError("there is nothing to learn: no object was found; find or mark at least one")
    for concept in concepts.concepts:
        if not concept.label.strip():
            raise IceError(f"the object {concept.key!r} has no label: give it a word such as ball")
        if tuple(concept.mask.shape) != (height, width):
            rows, columns = concept.mask.shape
            raise IceError(
                f"the mask of {concept.key!r} is {columns} x {rows}, the picture {width} x {height}: "
                "resize the mask to the picture"
            )
        if not concept.mask.any():
            raise IceError(f"the mask of {concept.key!r} is empty: mark some of the picture, or leave it out")
        if sum(other.key == concept.key for other in concepts.concepts) > 1:
            raise IceError(f"two objects have the key {concept.key!r}: give each its own")


def features(backbone: Backbone, prompts: Sequence[Prompt]) -> Tensor:
    """T(.) of B prompts: L2-normalised pooled text features [B, P]."""
    return unit(backbone.encode_prompts(prompts, contexts=0).pooled)


def encode_both(backbone: Backbone, image: Tensor) -> Tensor:
    """Latents [2, C, h, w] of a picture [3, H, W] in 0..1, plain and mirrored."""
    image = image.clone().float().to(backbone.device)
    return backbone.encode_image(torch.stack([image, image.flip(-1)])).detach().float()


def alignment_size(backbone: Backbone, latents: Tensor) -> Size:
    """The cross-attention size that is nearest in area to a quarter of the latent's sides.

    The method reads 16 x 16 for a 64 x 64 latent. A small model may have no attention there, so one pass
    asks which sizes it records; on a tie the larger one wins.
    """
    recorder = AttentionRecorder(kinds=["cross"], columns=torch.tensor([0]))
    timesteps = torch.zeros(1, dtype=torch.long, device=backbone.device)
    backbone.predict(latents[:1], timesteps, backbone.encode_prompts([Prompt(("photo",))]), recorder)
    sizes = recorder.recorded("cross")
    if not sizes:
        raise IceError(f"{backbone.name} shows no cross-attention: set alignment_weight to 0")
    wanted = latents.shape[-2] * latents.shape[-1] / 16
    return min(sizes, key=lambda size: (abs(math.log(math.prod(size) / wanted)), -math.prod(size)))


def _coverage(concept: Concept, size: Size, device: torch.device) -> Tensor:
    """Share of each cell that an object covers [2, 1, h, w], plain and mirrored; never all zero."""
    mask = concept.mask.clone().float().to(device)
    return F.adaptive_avg_pool2d(torch.stack([mask, mask.flip(-1)])[:, None], size)


def prepare(backbone: Backbone, concepts: ConceptSet, config: TrainingConfig) -> Scene:
    """Encode picture, masks, labels and axis words; the image encoder is not needed afterwards."""
    with torch.no_grad():
        latents = encode_both(backbone, concepts.image)
        aligned = config.method == "paper" and config.alignment_weight
        size = alignment_size(backbone, latents) if aligned else None
        ordered = sorted(concepts.concepts, key=lambda concept: concept.key)
        words = [concept.label for concept in ordered] + list(config.axes)
        anchors = features(backbone, [Prompt((word,)) for word in words])
        device = latents.device
        subjects = tuple(
            Subject(
                concept.key,
                concept.label,
                _coverage(concept, (latents.shape[-2], latents.shape[-1]), device),
                _coverage(concept, size, device).flatten(1) if size else torch.zeros(2, 0, device=device),
                anchor,
            )
            for concept, anchor in zip(ordered, anchors, strict=False)
        )
        cost = cell_distances(size).to(device) if size else torch.zeros(0, 0, device=device)
        return Scene(latents, subjects, anchors[len(ordered) :], size, cost)
