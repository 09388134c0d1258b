"""One picture of `uce.py`: its objects found, learned by every method, and drawn."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ice_core.api import axes_for, reading_for, reading_towers
from ice_core.composition import described, whole
from ice_core.concepts import ConceptSet, LearnedConcepts, Readings
from ice_core.evaluation.concept_extraction import DrawnConcept, DrawnPicture
from ice_core.evaluation.features import ImageFeatures, load_features
from ice_core.evaluation.masks import MaskScores, mask_scores, stacked
from ice_core.evaluation.pictures import source_pictures
from ice_core.files.images import load_image, load_mask, resize, resize_mask, working_size
from ice_core.localization.config import LocalizationConfig
from ice_core.localization.loop import alone, localize
from ice_core.localization.retrieval.retriever import Retriever
from ice_core.model.backbone import Backbone, Prompt, Token
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.run.defaults import AXES
from ice_core.run.pipeline import finish
from ice_core.run.reading import Question, read
from ice_core.run.settings import ExtractionSettings
from ice_core.training.config import TrainingConfig
from ice_core.training.events import Finished
from ice_core.training.trainer import train
from ice_core.world.bundled import is_bundled, load_bundled_towers
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene
from tools.world.judging import Judge, load_judge

FIRST_SEED = 7_000_000
"""Training drew scenes from 1 000 000 on; the other benchmarks draw from 8 and 9 million on."""
NOTHING = "nothing"

Part = str | Token


class JudgeFeatures:
    """The bundled judge, which was never trained on generated pictures, as an image encoder."""

    name = "judge"

    def __init__(self, judge: Judge, side: int = 128) -> None:
        self.judge, self.side = judge, side

    def encode_images(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in 0..1 -> unit embeddings [B, D]."""
        size = (self.side, self.side)
        same = tuple(images.shape[-2:]) == size
        fitting = images if same else F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        return F.normalize(self.judge.features(fitting), dim=-1)


@dataclass(frozen=True)
class Source:
    """A picture [3, H, W] of the data set, at any size, and its true masks [N, H, W] (none where unknown)."""

    name: str
    image: Tensor
    masks: Tensor


def features_named(text: str, device: str) -> ImageFeatures:
    """As `load_features` names them, and "bundled" and "judge": the rendered world's CLIP and judge."""
    if text == "bundled":
        return load_bundled_towers(device=device)
    return JudgeFeatures(load_judge()) if text == "judge" else load_features(text, device)


def sources(data: Path | None, scenes: int, seed: int) -> Iterator[Source]:
    """The pictures of a folder, or rendered ones."""
    if data is None:
        for n in range(scenes):
            scene = sample_scene(FIRST_SEED + 10_000 * seed + n)
            rendered = render([scene])
            yield Source(f"scene {n}", rendered.images[0], rendered.masks[0, : len(scene.objects)])
        return
    for one in source_pictures(data):
        image = load_image(one.picture)
        size = (image.shape[1], image.shape[2])
        yield Source(one.name, image, stacked([load_mask(path, size)[0] for path in one.masks], size))


def found_in(image: Tensor, backbone: Backbone, retriever: Retriever, seed: int) -> ConceptSet:
    """Stage One on a picture of the size that the model works at."""
    generator = torch.Generator().manual_seed(seed)
    *_, last = localize(backbone, retriever, image, LocalizationConfig(), generator)
    return last.result


def learned_from(
    found: ConceptSet, readings: Readings, backbone: Backbone, training: TrainingConfig
) -> LearnedConcepts:
    *_, last = train(backbone, found, training, readings)
    assert isinstance(last, Finished)
    return last.learned


def said_of(learned: LearnedConcepts, found: ConceptSet, method: str) -> list[tuple[Part, ...]]:
    """What stands for each found object in a prompt, in the order in which they were found."""
    by_key = {concept.key: concept for concept in learned.concepts}
    every = [by_key[concept.key] for concept in found.concepts]
    if method == "inversion":
        return [(concept.object,) for concept in every]
    return [described(concept) if method == "paper" else whole(concept) for concept in every]


def prompts(parts: Sequence[tuple[Part, ...]], pictures: int) -> list[Prompt]:
    """`pictures` prompts of each concept alone, then of all together: "a photo of a .. and a .."."""
    alone_each = [Prompt(("a photo of a", *part)) for part in parts for _ in range(pictures)]
    together: list[Part] = []
    for part in parts:
        together += ["and a" if together else "a photo of a", *part]
    return [*alone_each, *[Prompt(tuple(together))] * pictures]


def embedded(
    features: ImageFeatures, image: Tensor, found: ConceptSet, drawn: Tensor, pictures: int
) -> DrawnPicture:
    """Embeddings of a source, its masked objects and what was drawn of them [N * M + M, 3, H, W]."""
    objects = [alone(found.image, concept.mask) for concept in found.concepts]
    originals = features.encode_images(torch.stack([image, *objects]))
    parts = features.encode_images(drawn).split(pictures)
    concepts = tuple(DrawnConcept(o, p) for o, p in zip(originals[1:], parts[:-1], strict=True))
    return DrawnPicture(originals[0], parts[-1], concepts)


@dataclass(frozen=True)
class Measured:
    """Of one picture. found: keys of its objects; drawn: by features, then by method, empty where nothing was
    found; masks: None where the true ones are unknown."""

    found: tuple[str, ...]
    drawn: dict[str, dict[str, DrawnPicture]]
    masks: MaskScores | None

    def written(self) -> bytes:
        """As a file of plain containers and tensors."""

        def plain(one: DrawnPicture) -> list[Any]:
            return [one.source, one.drawn, [[concept.source, concept.drawn] for concept in one.concepts]]

        state = {
            "found": list(self.found),
            "drawn": {name: {m: plain(one) for m, one in by.items()} for name, by in self.drawn.items()},
            "masks": [list(part) for part in astuple(self.masks)] if self.masks else None,
        }
        file = io.BytesIO()
        torch.save(state, file)
        return file.getvalue()

    @classmethod
    def read(cls, content: bytes) -> Measured:
        def picture(source: Tensor, drawn: Tensor, concepts: list[list[Tensor]]) -> DrawnPicture:
            return DrawnPicture(source, drawn, tuple(DrawnConcept(*one) for one in concepts))

        state = torch.load(io.BytesIO(content), weights_only=True)
        drawn = {name: {m: picture(*one) for m, one in by.items()} for name, by in state["drawn"].items()}
        masks = MaskScores(*map(tuple, state["masks"])) if state["masks"] else None
        return cls(tuple(state["found"]), drawn, masks)


@dataclass(frozen=True)
class Bench:
    """The models and settings that every picture is measured with."""

    backbone: Backbone
    retriever: Retriever
    encoders: Mapping[str, ImageFeatures]
    methods: Sequence[str]
    trainings: Mapping[str, TrainingConfig]
    pictures: int
    seed: int
    sampling: SamplingConfig

    def measure(self, n: int, source: Source) -> Measured:
        """The n-th picture of the data set; the others have no part in what comes out."""
        backbone = self.backbone
        size = working_size(*source.image.shape[1:], backbone.native_size, backbone.multiple)
        image = resize(source.image, size)
        found = found_in(image, backbone, self.retriever, self.seed)
        masks = None
        if len(source.masks):
            truth = stacked([resize_mask(mask, size) for mask in source.masks], size)
            masks = mask_scores(truth, stacked([c.mask for c in found.concepts], size))
        drawn: dict[str, dict[str, DrawnPicture]] = {name: {} for name in self.encoders}
        if found.concepts:
            axes = axes_for(is_bundled(backbone), AXES)
            question = Question(axes, (), reading_towers(backbone) or self.retriever.model)
            settings = ExtractionSettings(reading=reading_for(is_bundled(backbone)))
            readings = finish(read(backbone, found, question, settings))
            for method in self.methods:
                parts: list[tuple[Part, ...]] = [("thing",)] * len(found.concepts)
                if method != NOTHING:
                    learned = learned_from(found, readings, backbone, self.trainings[method])
                    parts = said_of(learned, found, method)
                generator = torch.Generator().manual_seed(self.seed + n)
                made = sample(backbone, prompts(parts, self.pictures), self.sampling, generator, size)
                for name, features in self.encoders.items():
                    drawn[name][method] = embedded(features, image, found, made, self.pictures)
        return Measured(tuple(c.key for c in found.concepts), drawn, masks)
