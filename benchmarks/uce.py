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

`--keep` saves what was measured of each picture in a folder, and goes on from there; `--workers` measures as
many pictures at once, each on its share of the cores.

Each figure comes with a 95 % bootstrap interval. The table also shows published figures, of another model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import write_results
from uce_pictures import NOTHING, Bench, DrawnPicture, Measured, Source, features_named, sources
from uce_table import markdown

from ice_core.api import load_model, load_retriever
from ice_core.errors import IceError
from ice_core.evaluation.concept_extraction import extraction_scores
from ice_core.evaluation.masks import MaskScores
from ice_core.files.paths import atomic_write
from ice_core.model.sampling import SamplingConfig
from ice_core.run.defaults import AXES, BUNDLED_STEPS, METHODS
from ice_core.training.config import STEPS, Method, TrainingConfig
from ice_core.world.bundled import CLIP_FILE, is_bundled
from tools.world.judging import WEIGHTS as JUDGE_FILE

RESAMPLES = 2000


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


def training_for(method: Method, seed: int, bundled: bool, steps: int | None) -> TrainingConfig:
    usual = BUNDLED_STEPS if bundled and method in ("paper", "inversion") else STEPS[method]
    return TrainingConfig(AXES, 0 if method == "words" else steps or usual, seed=seed, method=method)


class Kept:
    """What was measured of each picture, in a folder: a killed run goes on there. None keeps nothing.

    A picture is measured anew if it, its place, the bundled weights, the checkpoint or a setting has changed.
    After a change of the code, or of a CLIP or DINO in a file of your own, take another folder.
    """

    def __init__(self, folder: Path | None, fingerprint: str, settings: dict[str, Any]) -> None:
        own = {name: value for name, value in settings.items() if name not in ("workers", "scenes")}
        weights = [
            hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (CLIP_FILE, JUDGE_FILE)
            if path.is_file()
        ]
        self.folder, self.of = folder, [fingerprint, weights, own]

    def path(self, n: int, source: Source) -> Path:
        assert self.folder
        text = json.dumps([n, self.of], sort_keys=True).encode()
        digest = hashlib.sha256(text + source.image.numpy().tobytes() + source.masks.numpy().tobytes())
        return self.folder / f"{digest.hexdigest()[:24]}.pt"

    def load(self, n: int, source: Source) -> Measured | None:
        if not self.folder or not self.path(n, source).exists():
            return None
        return Measured.read(self.path(n, source).read_bytes())

    def save(self, n: int, source: Source, measured: bytes) -> None:
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(self.path(n, source), measured)


def bench_for(options: argparse.Namespace) -> Bench:
    backbone = load_model(options.checkpoint, options.device)
    bundled = is_bundled(backbone)
    return Bench(
        backbone,
        load_retriever(backbone, options.clip),
        {name: features_named(name, str(backbone.device)) for name in options.features.split(",")},
        options.methods,
        {m: training_for(m, options.seed, bundled, options.steps) for m in METHODS},
        options.pictures,
        options.seed,
        SamplingConfig(steps=options.sampling_steps),
    )


class _Worker:
    """A process of its own, with models of its own."""

    bench: Bench

    @classmethod
    def start(cls, options: argparse.Namespace, threads: int) -> None:
        torch.set_num_threads(threads)
        cls.bench = bench_for(options)

    @classmethod
    def measure(cls, n: int, source: Source) -> bytes:
        """As bytes: each tensor that is sent would keep a file open in the process that asked."""
        return cls.bench.measure(n, source).written()


def measured_pictures(
    data: Sequence[Source], bench: Bench, kept: Kept, options: argparse.Namespace
) -> Iterator[tuple[int, Measured]]:
    """Each picture's number and what was measured of it, as they come."""
    missing = []
    for n, source in enumerate(data):
        if before := kept.load(n, source):
            yield n, before
        else:
            missing.append(n)
    if options.workers == 1 or not missing:
        for n in missing:
            measured = bench.measure(n, data[n])
            kept.save(n, data[n], measured.written())
            yield n, measured
        return
    threads = max(1, torch.get_num_threads() // options.workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, context, _Worker.start, (options, threads)) as pool:
        jobs = {pool.submit(_Worker.measure, n, data[n]): n for n in missing}
        try:
            for job in as_completed(jobs):
                n, measured = jobs[job], job.result()
                kept.save(n, data[n], measured)
                yield n, Measured.read(measured)
        except BaseException:
            # Those that have begun are waited for; a failure is not told hours later.
            pool.shutdown(cancel_futures=True)
            raise


def measure(
    data: Sequence[Source], bench: Bench, kept: Kept, options: argparse.Namespace
) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Figures by features and method, and how many pictures and concepts they are of."""
    every: dict[int, Measured] = {}
    for n, measured in measured_pictures(data, bench, kept, options):
        every[n] = measured
        note = f"{data[n].name}: {', '.join(measured.found) or 'nothing found'}"
        print(f"picture {len(every)} of {len(data)}, {note}", file=sys.stderr, flush=True)
    ordered = [every[n] for n in range(len(data))]
    masks = [one.masks for one in ordered if one.masks]
    figures = {
        name: {m: summary([one.drawn[name][m] for one in ordered if one.found], masks) for m in bench.methods}
        for name in bench.encoders
    }
    return figures, {"sources": len(data), "concepts": sum(len(one.found) for one in ordered)}


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
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="save each picture's part, and go on there"
    )
    parser.add_argument("--workers", type=int, default=1, help="pictures at once")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    paths = ("data", "out", "checkpoint", "keep")
    settings = {name: value for name, value in vars(options).items() if name not in paths}
    try:
        data = list(sources(options.data, options.scenes or 0, options.seed))
        bench = bench_for(options)
        backbone = bench.backbone
        kept = Kept(options.keep, backbone.fingerprint, settings)
        figures, counts = measure(data, bench, kept, options)
    except IceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    names = {text: features.name for text, features in bench.encoders.items()}
    settings |= counts | {"encoders": names, "model": backbone.name, "fingerprint": backbone.fingerprint}
    write_results(options.out, dict(figures), settings)
    model = "the bundled model" if is_bundled(backbone) else backbone.name
    where = options.data.name if options.data else f"{counts['sources']} rendered scenes"
    print("\n" + markdown(figures, model, f"{where} with {counts['concepts']} concepts"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
