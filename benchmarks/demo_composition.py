"""Does the demo workflow's last picture show what its prompt names? By the judge, over several seeds.

    python benchmarks/demo_composition.py --seeds 10 --out benchmarks/results/demo_composition.json

Runs the example workflow in a real ComfyUI as it is shipped, with another seed of the training and of the
drawing each time. A picture is right where the judge sees the cube's kind, and the cone's color and material;
a seed agrees where at least half of its pictures are right.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from results import write_results
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from ice_core.world.scenes import SceneObject, sample_scene
from tools.comfy_client import Client, Graph
from tools.comfy_host import PACK, find_hosts, running
from tools.workflow_designs import DEMO_SEED
from tools.world.judging import Judge, load_judge

WORKFLOW = PACK / "workflows" / "api" / "ICE Demo without downloads.json"
GIVER, THING = "cone", "cube"
"""Whose color and material the workflow's prompt puts on what."""


def with_seed(graph: Graph, seed: int) -> Graph:
    """The same graph, trained and drawn with another seed."""
    made = copy.deepcopy(graph)
    for node in made.values():
        if node["class_type"] in ("ICEIntrinsicTrainer", "KSampler"):
            node["inputs"]["seed"] = seed
    return made


def tensor_of(pictures: Sequence[Image.Image]) -> Tensor:
    """[B, 3, H, W] in 0..1."""
    return torch.stack([pil_to_tensor(picture) for picture in pictures]).float() / 255


def agreements(judge: Judge, pictures: Tensor, wanted: Mapping[str, str]) -> list[dict[str, bool]]:
    """Per picture, by axis, whether the judge sees what was wanted."""
    return [{axis: seen[axis] == value for axis, value in wanted.items()} for seen in judge.values(pictures)]


def wanted_of(objects: Sequence[SceneObject]) -> dict[str, str]:
    """What the workflow's prompt asks for of the scene that it renders."""
    by_kind = {thing.kind: thing for thing in objects}
    giver = by_kind[GIVER]
    return {"kind": THING, "color": giver.color, "material": giver.material}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    hosts = find_hosts()
    if not hosts:
        print("error: there is no ComfyUI; set COMFYUI_PATH to its folder", file=sys.stderr)
        return 2
    graph: Graph = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    (saving,) = [id_ for id_, node in graph.items() if node["class_type"] == "SaveImage"]
    judge, wanted = load_judge(), wanted_of(sample_scene(DEMO_SEED, count=2).objects)
    seen: list[list[dict[str, bool]]] = []
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder, running(hosts[-1], Path(folder)) as server:
        client = Client(server.url)
        for seed in range(options.seeds):
            run = client.run(with_seed(graph, seed))
            if run.status != "success":
                print(f"error: seed {seed} ended with {run.status}: {run.error}", file=sys.stderr)
                return 1
            seen.append(agreements(judge, tensor_of(client.pictures(run, saving)), wanted))
            seconds.append(run.seconds)
            print(seed, sum(all(one.values()) for one in seen[-1]), "of", len(seen[-1]), flush=True)
    settings = {"workflow": WORKFLOW.stem, "seeds": options.seeds, "comfyui": hosts[-1].version}
    write_results(options.out, summary(seen, seconds, wanted), settings)
    return 0


def summary(
    seen: Sequence[Sequence[Mapping[str, bool]]], seconds: Sequence[float], wanted: Mapping[str, str]
) -> dict[str, object]:
    """Shares of pictures that are right by axis and altogether, and how many seeds agree."""
    every = [one for pictures in seen for one in pictures]
    right = [[all(one.values()) for one in pictures] for pictures in seen]
    return {
        "wanted": dict(wanted),
        "seeds": len(seen),
        "seeds_that_agree": sum(2 * sum(pictures) >= len(pictures) for pictures in right),
        "pictures": len(every),
        "right": sum(sum(pictures) for pictures in right) / len(every),
        **{f"right.{axis}": sum(one[axis] for one in every) / len(every) for axis in wanted},
        "seconds_median": sorted(seconds)[len(seconds) // 2],
    }


if __name__ == "__main__":
    sys.exit(main())
