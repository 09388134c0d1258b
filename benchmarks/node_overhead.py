"""What the node layer costs and changes: the same extraction by `ice extract` and by the nodes in a real
ComfyUI.

    python benchmarks/node_overhead.py --out benchmarks/results/node_overhead.json

Compared is the work itself: the seconds of the stages that `ice extract` reports, and the seconds between a
node's start and the next one's in the server. Starting Python and the server, and loading the model, are
left out on both sides. Each side runs --repeats times in turn, the fastest run of each counts.

`least_cosine` is the least of all rows that both sides learned, between the same row of the one and of the
other: 1 where the nodes learn what the command does.

With --clock processor both sides count what their process computes instead of the time that passes: fairer
where other programs run beside. Set OMP_NUM_THREADS=1 with it, since threads that wait for each other count.

The two sides may run in different Pythons with different versions of torch. Name with --python one that has
the host's torch and this package's requirements, to compare nothing but the node layer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from results import write_results
from torch.nn.functional import cosine_similarity

from ice_core.concepts import LearnedConcepts
from ice_core.errors import IceError
from ice_core.files.embeddings import load_concepts
from ice_core.files.images import save_png
from ice_core.run.defaults import METHOD, METHODS
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene
from tools.comfy_client import Client, Graph
from tools.comfy_host import PACK, Server, find_hosts, running

STAGES = {
    "localization": ("ICEConceptRetriever", "ICEAttentionSegmentor"),
    "reading_training_and_pictures": ("ICEIntrinsicTrainer",),
    "writing": ("ICESaveConcepts",),
}
"""What is compared with what; the command reports reading, training and pictures apart, one node does all."""
AXES = ("color", "material", "pattern")
FOLDER = "ice/overhead"
"""Below which the nodes save, a folder per run."""
WALL, PROCESSOR = "wall", "processor"
_ICE = {
    WALL: ("-m", "ice_core.command_line.cli"),
    PROCESSOR: (
        "-c",
        "import runpy, time, threading; time.monotonic = time.process_time; "
        "runpy.run_module('ice_core.command_line.cli', run_name='__main__', alter_sys=True)",
    ),
}
"""How Python runs `ice`, so that the seconds in its report are of this clock."""


@dataclass(frozen=True)
class Work:
    """What both sides do. seed: which scene, and of everything."""

    method: str
    steps: int
    seed: int


def command_seconds(python: str, clock: str, picture: Path, folder: Path, work: Work) -> dict[str, float]:
    """Seconds per stage of one `ice extract` on the bundled model."""
    command = [
        python, *_ICE[clock], "extract", str(picture),
        "--method", work.method, "--steps", str(work.steps), "--seed", str(work.seed),
        "--axes", ",".join(AXES), "--device", "cpu", "--out", str(folder),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=PACK, capture_output=True, text=True)
    if done.returncode != 0:
        raise IceError(f"ice extract failed: {done.stderr.strip()[-500:]}")
    seconds = json.loads((folder / "report.json").read_text())["seconds"]
    return {
        "localization": seconds["localization"],
        "reading_training_and_pictures": seconds["reading"] + seconds["training"] + seconds["pictures"],
        "writing": seconds["writing"],
    }


def node_seconds(server: Server, clock: str, name: str, work: Work, folder: str) -> dict[str, float]:
    """The same stages by the nodes; another folder's name keeps everything from the cache."""
    graph = extraction_graph(name, work, folder)
    ticks = server.processor_seconds if clock == PROCESSOR else time.monotonic
    run = Client(server.url).run(graph, timeout=3600, clock=ticks)
    if run.status != "success":
        raise IceError(f"the graph failed: {run.error.get('exception_message', run.status)}")
    of_type = {graph[id_]["class_type"]: value for id_, value in run.seconds_of.items()}
    return {stage: sum(of_type[kind] for kind in kinds) for stage, kinds in STAGES.items()}


def extraction_graph(name: str, work: Work, folder: str) -> Graph:
    """The nodes that do what `ice extract` does, with its defaults."""
    wires: dict[str, Any] = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "image": ["2", 0]}
    return {
        "1": node("ICEDemoModel"),
        "2": node("LoadImage", image=name),
        "3": node(
            "ICEConceptRetriever", image=["2", 0], source="bundled demo CLIP", vocabulary="", count=8,
            open_clip_model=f"unused/{folder}",
        ),
        "4": node(
            "ICEAttentionSegmentor", **wires, mode="find every object", labels="", max_rounds=10,
            min_area=0.025, unexplained=0.1, seed=work.seed, words=["3", 0],
        ),
        "5": node(
            "ICEIntrinsicTrainer", **wires, concepts=["4", 0], axes=", ".join(AXES), steps=work.steps,
            learning_rate=5e-4, seed=work.seed, preview_every=0, refine_steps=0, lora_rank=4, resume=False,
            method=work.method, words=["3", 0],
        ),
        "6": node("ICESaveConcepts", learned=["5", 0], folder=folder, destination="embeddings"),
    }  # fmt: skip


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def least_cosine(first: LearnedConcepts, second: LearnedConcepts) -> float:
    """Between the same rows of the same tokens. Raises IceError where one side lacks a token."""
    if apart := first.tokens.keys() ^ second.tokens.keys():
        raise IceError(f"one side alone learned {', '.join(sorted(apart))}")
    pairs = [
        (rows, second.tokens[name].rows[encoder])
        for name, token in first.tokens.items()
        for encoder, rows in token.rows.items()
    ]
    return min(float(cosine_similarity(one.double(), other.double(), -1).min()) for one, other in pairs)


def measure(
    server: Server,
    python: str,
    clock: str,
    folder: Path,
    work: Work,
    repeats: int,
) -> dict[str, Any]:
    """Both sides in turn; the fastest run of each."""
    image = render([sample_scene(work.seed, count=2)]).images[0]
    picture = save_png(image, folder / "scene.png")
    with Image.open(picture) as opened:
        name = Client(server.url).upload(opened, picture.name)
    by_command, by_nodes = [], []
    for n in range(repeats):
        by_command.append(command_seconds(python, clock, picture, folder / f"command-{n}", work))
        by_nodes.append(node_seconds(server, clock, name, work, f"{FOLDER}/{n}"))
        print(f"run {n + 1}: command {by_command[-1]}, nodes {by_nodes[-1]}", file=sys.stderr, flush=True)
    by_both = [load_concepts(at) for at in (folder / "command-0", server.models("embeddings") / FOLDER / "0")]
    command = min(by_command, key=lambda stages: sum(stages.values()))
    nodes = min(by_nodes, key=lambda stages: sum(stages.values()))
    total, with_nodes = sum(command.values()), sum(nodes.values())
    return {
        "command_seconds": round(total, 2),
        "node_seconds": round(with_nodes, 2),
        "overhead_percent": round(100 * (with_nodes / total - 1), 1),
        "least_cosine": least_cosine(*by_both),
        "stages": {
            stage: {"command": round(command[stage], 2), "nodes": round(nodes[stage], 2)} for stage in STAGES
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=METHODS, default=METHOD, help="how tokens come about")
    parser.add_argument("--steps", type=int, default=60, help="training steps, at most")
    parser.add_argument("--seed", type=int, default=0, help="which scene, and the seed of everything")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each side; the fastest counts")
    parser.add_argument("--python", default=sys.executable, help="the Python that runs ice extract")
    parser.add_argument("--clock", choices=(WALL, PROCESSOR), default=WALL, help="which seconds are counted")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    hosts = find_hosts()
    if not hosts:
        parser.error("there is no ComfyUI; set COMFYUI_PATH to its folder")
    host = hosts[0]
    try:
        with tempfile.TemporaryDirectory() as name, running(host, Path(name)) as server:
            figures = measure(
                server, options.python, options.clock, Path(name),
                Work(options.method, options.steps, options.seed), options.repeats,
            )  # fmt: skip
            device = Client(server.url).get("/system_stats")["system"]["pytorch_version"]
    except IceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    settings = {
        "method": options.method, "steps": options.steps, "seed": options.seed, "repeats": options.repeats,
        "axes": list(AXES),
        "clock": options.clock, "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "comfyui": host.version, "comfyui_torch": device, "command_torch": torch_version(options.python),
    }  # fmt: skip
    write_results(options.out, figures, settings)
    return 0


def torch_version(python: str) -> str:
    ask = "from importlib.metadata import version; print(version('torch'))"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
