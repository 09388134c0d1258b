"""The field's benchmark: unsupervised concept extraction (arXiv 2407.07077), on anyone's pictures.

    python benchmarks/uce.py --data D1 --checkpoint sd15.safetensors --features clip,dino --out F
    python benchmarks/uce.py --scenes 40 --features bundled,judge --out benchmarks/results/uce.json

--data: a folder as D1 is published (NAME/img.jpg, optionally NAME/mask*.png), or any folder of pictures, with
masks in NAME.masks/*.png; --scenes: scenes of the bundled world instead. Stage One finds the objects of each
picture, every method learns their tokens, and of every concept, and of all of a picture's concepts together,
`--pictures` are drawn. By features, then by method:
- sim_i, sim_c, acc_1, acc_3: see `ice_core/evaluation/concept_extraction.py`;
- mean_iou, recall: per true object, of the mask that was matched to it; precision: per found mask; in pixels,
  0 without a match, only where there are true masks;
- `nothing`: what pictures score that ignore the tokens ("a photo of a thing"): as much is worth nothing.

Each figure comes with a 95 % bootstrap interval. The table also shows published figures, of another model.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from results import write_results
from torch import Tensor
from uce_table import markdown

from ice_core.api import axes_for, load_model, load_retriever, reading_towers
from ice_core.composition import described, whole
from ice_core.concepts import ConceptSet, LearnedConcepts, Readings
from ice_core.errors import IceError
from ice_core.evaluation.concept_extraction import DrawnConcept, DrawnPicture, extraction_scores
from ice_core.evaluation.features import ImageFeatures, load_features
from ice_core.evaluation.masks import MaskScores, mask_scores, stacked
from ice_core.evaluation.pictures import source_pictures
from ice_core.files.images import load_image, load_mask, resize, resize_mask, working_size
from ice_core.localization.config import LocalizationConfig
from ice_core.localization.loop import alone, localize
from ice_core.localization.retrieval.retriever import Retriever
from ice_core.model.backbone import Backbone, Prompt, Token
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.run.defaults import AXES, BUNDLED_STEPS, METHODS
from ice_core.run.pipeline import finish
from ice_core.run.reading import Question, read
from ice_core.run.settings import ExtractionSettings
from ice_core.training.config import STEPS, Method, TrainingConfig
from ice_core.training.events import Finished
from ice_core.training.trainer import train
from ice_core.world.bundled import is_bundled, load_bundled_towers
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene
from tools.world.judging import Judge, load_judge

FIRST_SEED = 7_000_000
"""Training drew scenes from 1 000 000 on; the other benchmarks draw from 8 and 9 million on."""
RESAMPLES = 2000
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


def summary(pictures: Sequence[DrawnPicture], masks: Sequence[MaskScores]) -> dict[str, Any]:
    """Figures with intervals, of all concepts and pictures."""
    scores = extraction_scores(pictures)
    values = {"sim_i": scores.identity, "sim_c": scores.composition}
    values |= {f"acc_{k}": shares for k, shares in scores.accuracy.items()}
    if masks:
        values["mean_iou"] = tuple(v for one in masks for v in one.iou)
        values["recall"] = tuple(v for one in masks for v in one.recall)
        values["precision"] = tuple(v for one in masks for v in one.precision)
    out: dict[str, Any] = {}
    rng = np.random.default_rng(0)
    for name, each in values.items():
        array = np.asarray(each)
        draws = array[rng.integers(len(array), size=(RESAMPLES, len(array)))].mean(1)
        out[name] = round(float(array.mean()), 4)
        out[f"{name}.interval"] = [round(float(q), 4) for q in np.quantile(draws, (0.025, 0.975))]
    return out


def measure(
    data: Sequence[Source],
    encoders: Mapping[str, ImageFeatures],
    backbone: Backbone,
    retriever: Retriever,
    methods: Sequence[str],
    trainings: Mapping[str, TrainingConfig],
    pictures: int,
    seed: int,
    sampling: SamplingConfig,
) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Figures by features and method, and how many pictures and concepts they are of."""
    drawn: dict[str, dict[str, list[DrawnPicture]]] = {name: {m: [] for m in methods} for name in encoders}
    masks: list[MaskScores] = []
    axes = axes_for(is_bundled(backbone), AXES)
    question = Question(axes, (), reading_towers(backbone) or retriever.model)
    for n, source in enumerate(data):
        size = working_size(*source.image.shape[1:], backbone.native_size, backbone.multiple)
        image = resize(source.image, size)
        found = found_in(image, backbone, retriever, seed)
        if len(source.masks):
            truth = stacked([resize_mask(mask, size) for mask in source.masks], size)
            masks.append(mask_scores(truth, stacked([c.mask for c in found.concepts], size)))
        if found.concepts:
            readings = finish(read(backbone, found, question, ExtractionSettings()))
            for method in methods:
                parts: list[tuple[Part, ...]] = [("thing",)] * len(found.concepts)
                if method != NOTHING:
                    learned = learned_from(found, readings, backbone, trainings[method])
                    parts = said_of(learned, found, method)
                generator = torch.Generator().manual_seed(seed + n)
                made = sample(backbone, prompts(parts, pictures), sampling, generator, size)
                for name, features in encoders.items():
                    drawn[name][method].append(embedded(features, image, found, made, pictures))
        note = f"{source.name}: {', '.join(c.key for c in found.concepts) or 'nothing found'}"
        print(f"picture {n + 1} of {len(data)}, {note}", file=sys.stderr, flush=True)
    first = next(iter(next(iter(drawn.values())).values()))
    counts = {"pictures": len(data), "concepts": sum(len(one.concepts) for one in first)}
    figures = {name: {m: summary(of, masks) for m, of in by.items()} for name, by in drawn.items()}
    return figures, counts


def training_for(method: Method, seed: int, bundled: bool, steps: int | None) -> TrainingConfig:
    usual = BUNDLED_STEPS if bundled and method in ("paper", "inversion") else STEPS[method]
    return TrainingConfig(AXES, 0 if method == "words" else steps or usual, seed=seed, method=method)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--data", type=Path, metavar="FOLDER")
    which.add_argument("--scenes", type=int, help="number of rendered scenes")
    parser.add_argument(
        "--features", default="bundled,judge", help="such as clip,dino:NAME=FILE,bundled,judge"
    )
    parser.add_argument("--methods", nargs="+", default=[*METHODS, NOTHING], choices=[*METHODS, NOTHING])
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the bundled model without it")
    parser.add_argument("--clip", metavar="NAME", help="what names the objects, as in `ice extract`")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pictures", type=int, default=8, help="per concept, and of all together")
    parser.add_argument("--steps", type=int, help="of every method that trains (its own number)")
    parser.add_argument("--sampling-steps", type=int, default=SamplingConfig.steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    try:
        data = list(sources(options.data, options.scenes or 0, options.seed))
        backbone = load_model(options.checkpoint, options.device)
        retriever = load_retriever(backbone, options.clip)
        encoders = {n: features_named(n, str(backbone.device)) for n in options.features.split(",")}
        bundled = is_bundled(backbone)
        trainings = {m: training_for(m, options.seed, bundled, options.steps) for m in METHODS}
        figures, counts = measure(
            data, encoders, backbone, retriever, options.methods, trainings, options.pictures, options.seed,
            SamplingConfig(steps=options.sampling_steps),
        )  # fmt: skip
    except IceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    names = {text: features.name for text, features in encoders.items()}
    paths = ("data", "out", "checkpoint")
    settings = {name: value for name, value in vars(options).items() if name not in paths}
    settings |= counts | {"encoders": names, "model": backbone.name, "fingerprint": backbone.fingerprint}
    write_results(options.out, dict(figures), settings)
    model = "the bundled model" if bundled else backbone.name
    where = options.data.name if options.data else f"{counts['pictures']} rendered scenes"
    print("\n" + markdown(figures, model, f"{where} with {counts['concepts']} concepts"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
