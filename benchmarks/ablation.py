"""What each part of anchored training is worth: each off in turn, fewer and more steps, more rows per token.

    python benchmarks/ablation.py --scenes 10 --seed 3 --out benchmarks/results/ablation.json

The figures are those of `benchmarks/concepts.py`, a key per variant; `default` is the method as it ships.
Variants learn and draw in `--processes` processes of one thread each, so that seconds are those of one core.
With `--markdown` the table of the README is printed too. With `--keep` variants that OUT has already, of the
same scenes, are not measured again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from concepts import FIRST_SEED, Tally, kept, learn, models, score
from results import write_results

from ice_core.model.sampling import SamplingConfig
from ice_core.training.config import AnchoredConfig, TrainingConfig
from ice_core.world.scenes import INTRINSIC_AXES, sample_scene

STEPS = (8, 25, 50, 100, 200, 400, 800)
ROWS = (2, 3, 4)
COLUMNS = (
    "transfer.color", "transfer.material", "transfer.pattern", "recomposition", "shade_error", "scale_error",
    "seconds_per_object",
)  # fmt: skip


def variants(only: list[str] | None) -> Mapping[str, TrainingConfig]:
    """Every training that is compared, by name."""
    plain = TrainingConfig(INTRINSIC_AXES)
    changed: dict[str, AnchoredConfig] = {
        "no mixture": replace(plain.anchored, solving=0),
        "no residual": replace(plain.anchored, residual_rate=0.0),
        "damping 0.03": replace(plain.anchored, damping=0.03),
        "damping 3": replace(plain.anchored, damping=3.0),
        "no substitution": replace(plain.anchored, substitution=0.0),
        "no throw-away token": replace(plain.anchored, instance=False),
        "the other objects unnamed": replace(plain.anchored, beside=False),
        "noise of 0.05 to 0.4": replace(plain.anchored, earliest=0.05, latest=0.4),
        "noise of 0.4 to 0.75": replace(plain.anchored, earliest=0.4, latest=0.75),
        "no pull to the words": replace(plain.anchored, keep_close=0.0),
        "an off-axis anchor": replace(plain.anchored, off_axis=1.0),
        "last state instead of the best": replace(plain.anchored, evaluations=0),
    }
    patient = replace(plain.anchored, patience=10**6)
    every = {"words": replace(plain, method="words", steps=0), "default": plain}
    every |= {name: replace(plain, anchored=config) for name, config in changed.items()}
    every |= {f"{n} steps": replace(plain, steps=n, anchored=patient) for n in STEPS}
    every |= {f"{n} rows": replace(plain, anchored=replace(plain.anchored, rows=n)) for n in ROWS}
    return {name: config for name, config in every.items() if only is None or name in only}


def measure(number: int, seed: int, name: str) -> Tally:
    """What a variant reaches on the objects of one scene."""
    backbone, towers, judge = models(1)
    scene, tally = sample_scene(FIRST_SEED + 10_000 * seed + number, "seen"), Tally()
    parts, seconds = learn(backbone, towers, scene, replace(variants([name])[name], seed=seed))
    for i, item in enumerate(scene.objects):
        tally.add("seconds_per_object", [seconds])
        score(backbone, judge, item, parts[i], tally, SamplingConfig(), seed + 1000 * number + i, 2)
    return tally


def table(every: Mapping[str, Any]) -> str:
    lines = ["| | " + " | ".join(COLUMNS) + " |", "| --- |" + " --- |" * len(COLUMNS)]
    for name, figures in every.items():
        lines.append(f"| {name} | " + " | ".join(str(figures.get(column, "")) for column in COLUMNS) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scenes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these variants alone")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="variants that OUT has are not measured again")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    names = list(variants(args.only))
    if not names:
        parser.error(f"there is no variant {args.only}; there are: {', '.join(variants(None))}")
    known = kept(args.out, vars(args), ("seed", "scenes")) if args.keep else {}
    if not (names := [name for name in names if name not in known]):
        parser.error(f"{args.out} has all of that")
    figures: dict[str, Any] = dict(known)
    tallies = {name: Tally() for name in names}
    with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
        runs = [(n, args.seed, name) for n in range(args.scenes) for name in names]
        for (n, _, name), found in zip(runs, pool.map(measure, *zip(*runs, strict=True)), strict=True):
            tallies[name].extend(found)
            if name == names[-1]:
                print(f"scene {n + 1} of {args.scenes}", file=sys.stderr, flush=True)
                if known and n + 1 < args.scenes:
                    continue  # what is kept is of all scenes, and stays as it is until the rest is too
                objects = len(tallies[name].values["recomposition"])
                settings = {"seed": args.seed, "scenes": n + 1, "objects": objects}
                figures |= {name: tally.figures() for name, tally in tallies.items()}
                write_results(args.out, figures, settings)
    if args.markdown:
        print(table(figures))


if __name__ == "__main__":
    main()
