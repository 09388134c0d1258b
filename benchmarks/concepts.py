"""Are the learned tokens what they should be? Transfer, leakage and recomposition, judged on renders' truth.

    python benchmarks/concepts.py --scenes 20 --seed 0 --out benchmarks/results/concepts.json

For every object of every scene (true masks and labels, so that Stage Two is measured alone):
- transfer.<axis>: pictures of "a photo of a <axis token> <other kind>" in which the judge sees the
  source's value of that axis;
- leakage.<axis>: in the same pictures, the share of the source's *other* attributes (its kind and the
  other axes) that came along though they were not asked for; read it against the ceiling's, whose
  prompts hold only the true word and so give the rate of chance;
- recomposition: pictures of "a photo of a <all axis tokens> <object token>", share of all attributes
  that the judge sees right.
`textual_inversion`: one token for the picture, no masks, no triplets, as many steps; it stands in for
whatever token is asked for. `ceiling`: the model prompted with the true words.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import torch
from results import write_results

from ice_core.composition import described
from ice_core.concepts import as_people_write
from ice_core.localization.loop import concepts_from_masks
from ice_core.model.backbone import Backbone, Prompt, Token
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.run.defaults import BUNDLED_STEPS
from ice_core.training.config import TrainingConfig
from ice_core.training.events import Finished
from ice_core.training.inversion import InversionConfig, Inverted, invert
from ice_core.training.trainer import train
from ice_core.world.bundled import load_bundled_backbone
from ice_core.world.judge import Judge, load_judge
from ice_core.world.renderer import render
from ice_core.world.scenes import AXES, INTRINSIC_AXES, Scene, SceneObject, Split, sample_scene

FIRST_SEED = 8_000_000


@dataclass
class Tally:
    """Means of what the judge saw, by figure."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def figures(self) -> dict[str, float]:
        return {name: round(sum(v) / len(v), 4) for name, v in self.values.items()}


@dataclass(frozen=True)
class Parts:
    """What stands for an object's kind and for each axis in a prompt: words or tokens."""

    kind: str | Token
    axes: dict[str, str | Token]
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
    prompts = [Prompt(("a photo of a", parts.axes[axis], kind)) for axis in INTRINSIC_AXES for kind in others]
    prompts += [Prompt(("a photo of a", *parts.whole))] * whole_pictures
    rng = torch.Generator().manual_seed(seed)
    seen = judge.values(sample(backbone, prompts, config, rng, batch=16))
    for n, axis in enumerate(INTRINSIC_AXES):
        for picture in seen[n * len(others) : (n + 1) * len(others)]:
            tally.values[f"transfer.{axis}"].append(picture[axis] == item.value(axis))
            rest = [a for a in AXES if a != axis]
            came_along = sum(picture[a] == item.value(a) for a in rest) / len(rest)
            tally.values[f"leakage.{axis}"].append(came_along)
    for picture in seen[len(INTRINSIC_AXES) * len(others) :]:
        tally.values["recomposition"].append(sum(picture[a] == item.value(a) for a in AXES) / len(AXES))


def learn_ours(
    backbone: Backbone, scene: Scene, steps: int, seed: int, rate: float
) -> tuple[list[Parts], float]:
    """Parts per object, and seconds per object."""
    rendered = render([scene])
    labels = [o.kind for o in scene.objects]
    concepts = concepts_from_masks(rendered.images[0], labels, list(rendered.masks[0, : len(labels)]))
    config = TrainingConfig(axes=INTRINSIC_AXES, steps=steps, seed=seed, learning_rate=rate)
    start = time.perf_counter()
    *_, last = train(backbone, concepts, config)
    seconds = time.perf_counter() - start
    assert isinstance(last, Finished)
    # The learner orders objects by its own rule; keys are given in the order of the labels.
    by_key = {c.key: c for c in last.learned.concepts}
    parts = []
    for concept in concepts.concepts:
        learned = by_key[concept.key]
        axes: dict[str, str | Token] = dict(learned.intrinsics)
        parts.append(Parts(learned.object, axes, described(learned)))
    return parts, seconds / len(labels)


def learn_plain(
    backbone: Backbone, scene: Scene, steps: int, seed: int, rate: float
) -> tuple[list[Parts], float]:
    """One token for the picture stands for everything."""
    image, kinds = render([scene]).images[0], [o.kind for o in scene.objects]
    start = time.perf_counter()
    *_, last = invert(backbone, image, kinds[0], InversionConfig(steps, rate, seed))
    seconds = time.perf_counter() - start
    assert isinstance(last, Inverted)
    parts = Parts(last.token, dict.fromkeys(INTRINSIC_AXES, last.token), (last.token,))
    return [parts] * len(kinds), seconds / len(kinds)


def true_words(scene: Scene) -> list[Parts]:
    return [
        Parts(
            o.kind,
            {axis: o.value(axis) for axis in INTRINSIC_AXES},
            (*(o.value(axis) for axis in as_people_write(INTRINSIC_AXES)), o.kind),
        )
        for o in scene.objects
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=BUNDLED_STEPS)
    parser.add_argument("--learning-rate", type=float, default=TrainingConfig.learning_rate)
    parser.add_argument("--split", choices=("seen", "held_out", "any"), default="seen")
    parser.add_argument("--whole-pictures", type=int, default=4, help="pictures per object, recomposition")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    backbone, judge, config = load_bundled_backbone(), load_judge(), SamplingConfig()
    tallies = {name: Tally() for name in ("ours", "textual_inversion", "ceiling")}
    split: Split = args.split
    objects = 0
    for n in range(args.scenes):
        scene = sample_scene(FIRST_SEED + 10_000 * args.seed + n, split)
        learned = {
            "ours": learn_ours(backbone, scene, args.steps, args.seed, args.learning_rate),
            "textual_inversion": learn_plain(backbone, scene, args.steps, args.seed, args.learning_rate),
            "ceiling": (true_words(scene), 0.0),
        }
        for name, (parts, seconds) in learned.items():
            for i, item in enumerate(scene.objects):
                tallies[name].values["seconds_per_object"].append(seconds)
                draw_seed = args.seed + 1000 * n + i
                score(backbone, judge, item, parts[i], tallies[name], config, draw_seed, args.whole_pictures)
        objects += len(scene.objects)
        print(f"scene {n + 1} of {args.scenes}: {tallies['ours'].figures()}", file=sys.stderr, flush=True)
        # After every scene: a run that is stopped leaves its figures, and says how many scenes they are of.
        settings = vars(args) | {"scenes": n + 1, "objects": objects}
        del settings["out"]
        write_results(args.out, {name: t.figures() for name, t in tallies.items()}, settings)


if __name__ == "__main__":
    main()
