"""Are the tokens what they should be? Every method's, judged on renders' truth.

    python benchmarks/concepts.py --scenes 20 --seed 1 --out benchmarks/results/concepts.json

For every object of every scene (true masks and labels, properties read as by default, so that Stage Two
is measured alone), under a key per method, and `ceiling`: the true words; `mixtures`: the mixtures of words
that the bundled model was taught for just this paint, finish and width of pattern, which is the most that it
understands of a shade; `nothing`: no token at all:
- transfer.<axis>: pictures of "a photo of a <axis token> <other kind>" in which the judge sees the
  source's value of that axis;
- leakage.<axis>: in the same pictures, the share of the source's *other* attributes (its kind and the
  other axes) that came along though they were not asked for; read it against the ceiling's, whose
  prompts hold only the true word and so give the rate of chance;
- recomposition: pictures of "a photo of a <all tokens>", share of all attributes that the judge sees right;
- shade_error: CIEDE2000 between the source's paint and what the judge reads off the pictures of the color
  token, median of an object's pictures, then of objects;
- scale_error: the same of the pattern's scale, as |log ratio|, of patterned objects;
- seconds_per_object: of reading and learning.
Plain inversion has one token per object, which stands in for whatever is asked for. Each figure comes with
a 95 % bootstrap interval over objects. `render`: the judge's own shade_error and scale_error, on fresh
renders of the source's paint on other kinds.

With `--keep` figures that OUT has already, of the same scenes, are kept, and only what it lacks is measured:
so methods can be measured one after the other, or again after one has changed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from results import write_results

from ice_core.api import reading_for
from ice_core.composition import described, whole
from ice_core.concepts import as_people_write
from ice_core.localization.given import concepts_from_masks
from ice_core.localization.retrieval.towers import ImageTextModel
from ice_core.model.backbone import Backbone, Prompt, Token
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.run.defaults import BUNDLED_STEPS, METHODS
from ice_core.run.pipeline import finish
from ice_core.run.reading import Question, read
from ice_core.run.settings import ExtractionSettings
from ice_core.training.config import STEPS, AnchoredConfig, Method, TrainingConfig
from ice_core.training.events import Finished
from ice_core.training.mixture import mixture_of, spans
from ice_core.training.trainer import train
from ice_core.world.bundled import load_bundled_backbone, load_bundled_towers, world_axes
from ice_core.world.captions import own_mixture
from ice_core.world.colors import lab, lab_difference
from ice_core.world.renderer import render
from ice_core.world.scenes import AXES, INTRINSIC_AXES, Scene, SceneObject, Split, sample_scene
from tools.world.judging import Judge, load_judge

FIRST_SEED = 8_000_000
RESAMPLES = 2000
SAME_FIGURES = ("seed", "scenes", "steps", "split", "whole_pictures")
"""Settings that figures of one file share."""
REFERENCES = ("ceiling", "mixtures", "nothing", "render")
"""Keys beside the methods': what their figures are to be read against."""
MEDIANS = ("shade_error", "scale_error")


@dataclass
class Tally:
    """One value per object and figure."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, of_one_object: Sequence[float]) -> None:
        middle = np.median if name in MEDIANS else np.mean
        self.values[name].append(float(middle(np.asarray(of_one_object, dtype=float))))

    def extend(self, other: Tally) -> None:
        """Add the objects of another."""
        for name, values in other.values.items():
            self.values[name] += values

    def figures(self) -> dict[str, object]:
        """Each figure, and its interval as `<figure>.interval`."""
        out: dict[str, object] = {}
        rng = np.random.default_rng(0)
        for name, values in self.values.items():
            middle = np.median if name in MEDIANS else np.mean
            array = np.asarray(values)
            draws = middle(array[rng.integers(len(array), size=(RESAMPLES, len(array)))], axis=1)
            out[name] = round(float(middle(array)), 4)
            out[f"{name}.interval"] = [round(float(q), 4) for q in np.quantile(draws, (0.025, 0.975))]
        return out


@dataclass(frozen=True)
class Parts:
    """What stands for each axis in a prompt, and for the whole object: words or tokens."""

    axes: Mapping[str, str | Token | None]
    whole: tuple[str | Token, ...]


def score(
    backbone: Backbone,
    judge: Judge,
    item: SceneObject,
    parts: Parts,
    tally: Tally,
    config: SamplingConfig,
    seed: int,
    whole_pictures: int,
) -> None:
    """Generate this object's pictures and add what the judge sees."""
    others = [kind for kind in AXES["kind"] if kind != item.kind]
    prompts = []
    for axis in INTRINSIC_AXES:
        said = parts.axes[axis]
        prompts += [Prompt(("a photo of a", *([said] if said is not None else []), kind)) for kind in others]
    prompts += [Prompt(("a photo of a", *parts.whole))] * whole_pictures
    pictures = sample(backbone, prompts, config, torch.Generator().manual_seed(seed), batch=16)
    seen, measured = judge.values(pictures), judge.measures(pictures)
    for n, axis in enumerate(INTRINSIC_AXES):
        span = range(n * len(others), (n + 1) * len(others))
        tally.add(f"transfer.{axis}", [seen[i][axis] == item.value(axis) for i in span])
        rest = [a for a in AXES if a != axis]
        came = [sum(seen[i][a] == item.value(a) for a in rest) / len(rest) for i in span]
        tally.add(f"leakage.{axis}", came)
        if axis == "color":
            paint = lab(item.paint)
            tally.add("shade_error", [lab_difference(measured.base[i].numpy(), paint) for i in span])
        if axis == "pattern" and item.pattern != "plain":
            ratios = [float(measured.scale[i]) / item.scale for i in span]
            tally.add("scale_error", [abs(float(np.log(ratio))) for ratio in ratios])
    every = range(len(INTRINSIC_AXES) * len(others), len(prompts))
    right = [sum(seen[i][a] == item.value(a) for a in AXES) / len(AXES) for i in every]
    tally.add("recomposition", right)


def floor(judge: Judge, item: SceneObject, scene: Scene, tally: Tally) -> None:
    """What the judge reads off renders of the source's properties on the other kinds."""
    kinds = [kind for kind in AXES["kind"] if kind != item.kind]
    alone = [replace(scene, objects=(replace(item, kind=kind, x=0.0, z=0.0),)) for kind in kinds]
    measured = judge.measures(render(alone).images)
    paint = lab(item.paint)
    tally.add("shade_error", [lab_difference(base.numpy(), paint) for base in measured.base])
    if item.pattern != "plain":
        tally.add("scale_error", [abs(float(np.log(float(s) / item.scale))) for s in measured.scale])


def learn(
    backbone: Backbone, towers: ImageTextModel, scene: Scene, config: TrainingConfig
) -> tuple[list[Parts], float]:
    """Parts per object by one method, and seconds per object."""
    rendered = render([scene])
    labels = [o.kind for o in scene.objects]
    concepts = concepts_from_masks(rendered.images[0], labels, list(rendered.masks[0, : len(labels)]))
    axes = [world_axes()[axis] for axis in INTRINSIC_AXES]
    start = time.perf_counter()
    settings = ExtractionSettings(config, reading=reading_for(True))
    readings = finish(read(backbone, concepts, Question(tuple(axes), (), towers), settings))
    *_, last = train(backbone, concepts, config, readings)
    seconds = time.perf_counter() - start
    assert isinstance(last, Finished)
    # The learner orders objects by its own rule; keys are given in the order of the labels.
    by_key = {c.key: c for c in last.learned.concepts}
    parts = []
    for concept in concepts.concepts:
        learned = by_key[concept.key]
        if config.method == "inversion":
            parts.append(Parts(dict.fromkeys(INTRINSIC_AXES, learned.object), (learned.object,)))
            continue
        every = described(learned) if config.method == "paper" else whole(learned)
        parts.append(Parts({axis: learned.intrinsics.get(axis) for axis in INTRINSIC_AXES}, every))
    return parts, seconds / len(labels)


def true_words(scene: Scene) -> list[Parts]:
    return [
        Parts({axis: o.value(axis) for axis in INTRINSIC_AXES}, (o.pattern, o.color, o.material, o.kind))
        for o in scene.objects
    ]


def true_mixtures(backbone: Backbone, scene: Scene) -> list[Parts]:
    parts = []
    for item in scene.objects:
        axes = {axis: mixed(backbone, own_mixture(item, axis)) for axis in INTRINSIC_AXES}
        parts.append(Parts(axes, (*(axes[axis] for axis in as_people_write(INTRINSIC_AXES)), item.kind)))
    return parts


def mixed(backbone: Backbone, words: Sequence[tuple[str, float]]) -> Token:
    """A token of the words' rows, mixed by weights as the bundled model was taught."""
    names, weights = zip(*words, strict=True)
    mixture = mixture_of(backbone, "own", names, weights, spans(backbone, ()))
    return mixture.token(mixture.start, mixture.still())


def no_words(scene: Scene) -> list[Parts]:
    return [Parts(dict.fromkeys(INTRINSIC_AXES), ("thing",)) for _ in scene.objects]


def kept(path: Path, settings: Mapping[str, object], same: Sequence[str] = SAME_FIGURES) -> dict[str, object]:
    """Figures of a result file by method. Raises ValueError where a setting in `same` was another: they are
    of other scenes, steps or pictures."""
    try:
        before = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    for name in same:
        if before["settings"][name] != settings[name]:
            raise ValueError(
                f"the figures in {path} are of {name} {before['settings'][name]}, not {settings[name]}: "
                "measure the same again, or write to another file"
            )
    return {name: value for name, value in before.items() if name not in ("settings", "environment")}


@cache
def models(threads: int) -> tuple[Backbone, ImageTextModel, Judge]:
    """The bundled model, its towers and the judge, loaded once per process, which takes so many threads."""
    torch.set_num_threads(threads)
    backbone = load_bundled_backbone()
    return backbone, load_bundled_towers(backbone), load_judge()


@dataclass(frozen=True)
class Job:
    """What is measured of every scene."""

    names: tuple[str, ...]
    seed: int
    split: Split
    steps: int | None
    whole_pictures: int
    threads: int

    def training(self, method: Method) -> TrainingConfig:
        usual = BUNDLED_STEPS if method in ("paper", "inversion") else STEPS[method]
        steps = 0 if method == "words" else self.steps or usual
        return TrainingConfig(INTRINSIC_AXES, steps, seed=self.seed, method=method, anchored=AnchoredConfig())

    def parts(
        self, name: str, backbone: Backbone, towers: ImageTextModel, scene: Scene
    ) -> tuple[list[Parts], float]:
        """Parts per object, and seconds per object that it took to come by them."""
        if name == "ceiling":
            return true_words(scene), 0.0
        if name == "mixtures":
            return true_mixtures(backbone, scene), 0.0
        if name == "nothing":
            return no_words(scene), 0.0
        return learn(backbone, towers, scene, self.training(name))  # type: ignore[arg-type]


def measure(job: Job, number: int) -> tuple[dict[str, Tally], int]:
    """Figures of the objects of one scene, and how many there are."""
    backbone, towers, judge = models(job.threads)
    scene = sample_scene(FIRST_SEED + 10_000 * job.seed + number, job.split)
    tallies = {name: Tally() for name in job.names}
    for name, tally in tallies.items():
        if name == "render":
            for item in scene.objects:
                floor(judge, item, scene, tally)
            continue
        parts, seconds = job.parts(name, backbone, towers, scene)
        for i, item in enumerate(scene.objects):
            if name in METHODS:
                tally.add("seconds_per_object", [seconds])
            draw_seed = job.seed + 1000 * number + i
            score(backbone, judge, item, parts[i], tally, SamplingConfig(), draw_seed, job.whole_pictures)
    return tallies, len(scene.objects)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--steps", type=int, help="of every method that trains (its own number)")
    parser.add_argument("--split", choices=("seen", "held_out", "any"), default="seen")
    parser.add_argument("--whole-pictures", type=int, default=4, help="pictures per object, recomposition")
    parser.add_argument(
        "--processes", type=int, default=1, help="scenes at once, of equal shares of the cores"
    )
    parser.add_argument("--keep", action="store_true", help="figures that OUT has are not measured again")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    known = kept(args.out, vars(args)) if args.keep else {}
    names = tuple(name for name in (*args.methods, *REFERENCES) if name not in known)
    threads = max(1, torch.get_num_threads() // args.processes)
    job = Job(names, args.seed, args.split, args.steps, args.whole_pictures, threads)
    tallies = {name: Tally() for name in names}
    objects = 0
    with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
        every = pool.map(measure, [job] * args.scenes, range(args.scenes))
        for n, (found, count) in enumerate(every):
            for name, tally in found.items():
                tallies[name].extend(tally)
            objects += count
            print(f"scene {n + 1} of {args.scenes}", file=sys.stderr, flush=True)
            if known and n + 1 < args.scenes:
                continue  # what is kept is of all scenes, and stays as it is until the rest is too
            # A run that is stopped leaves its figures, and says how many scenes they are of.
            settings = vars(args) | {"scenes": n + 1, "objects": objects}
            settings["methods"] = [name for name in METHODS if name in known or name in args.methods]
            del settings["out"], settings["keep"]
            write_results(args.out, known | {name: t.figures() for name, t in tallies.items()}, settings)


if __name__ == "__main__":
    main()
