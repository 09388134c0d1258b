"""Does a server that works for long keep what it used? Resident memory after each of many queued runs.

    python benchmarks/queued_runs.py --runs 100 --out benchmarks/results/queued_runs.json

All runs are queued at once in a real ComfyUI. In each, of another rendered scene, the object is found by its
name, its color is learned in four steps of the usual method, two pictures are drawn with the tokens, and the
concepts are saved.
`tenth`, `last`, `largest`: bytes of the server's resident memory after the tenth run, after the last, and the
most after any; `growth_percent`: of the last over the tenth. Linux only.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from node_overhead import node
from results import write_results

from ice_core.files.images import to_pil
from ice_core.run.defaults import METHOD
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene
from tools.comfy_client import Client, Graph
from tools.comfy_host import Server, find_hosts, running

FIRST_SEED = 8_500_000
STEPS, PATIENCE = 4, 3600.0


def graph(picture: str, label: str, seed: int) -> Graph:
    """From picture to concepts and drawings, on the demo's model. label: what is in the picture."""
    model = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2]}
    return {
        "1": node("ICEDemoModel"),
        "2": node("LoadImage", image=picture),
        "3": node(
            "ICEConceptRetriever", image=["2", 0], source="bundled demo CLIP", vocabulary="", count=8,
            open_clip_model="",
        ),
        "4": node(
            "ICEAttentionSegmentor", **model, image=["2", 0], mode="given words, one pass", labels=label,
            max_rounds=10, min_area=0.025, unexplained=0.1, seed=seed, words=["3", 0],
        ),
        "5": node(
            "ICEIntrinsicTrainer", **model, image=["2", 0], concepts=["4", 0], axes="color",
            steps=STEPS, learning_rate=5e-4, seed=seed, preview_every=STEPS, refine_steps=0, lora_rank=4,
            resume=False, method=METHOD, words=["3", 0],
        ),
        "6": node("ICESaveConcepts", learned=["5", 0], folder=f"ice/{seed}", destination="embeddings"),
        "7": node("ICEConceptComposer", clip=["1", 1], a=["5", 0], prompt=f"a photo of a {{{label}}}"),
        "8": node("EmptyLatentImage", width=128, height=128, batch_size=2),
        "9": node(
            "KSampler", model=["1", 0], positive=["7", 0], negative=["7", 0], latent_image=["8", 0],
            seed=seed, steps=4, cfg=2.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "10": node("VAEDecode", samples=["9", 0], vae=["1", 2]),
        "11": node("PreviewImage", images=["10", 0]),
    }  # fmt: skip


def resident(server: Server) -> int:
    """Bytes of the server's process in memory."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{server.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def measure(server: Server, runs: int) -> Iterator[int]:
    """Memory after each run, as they end."""
    client = Client(server.url)
    queued = []
    for n in range(runs):
        scene = sample_scene(FIRST_SEED + n, count=1)
        name = client.upload(to_pil(render([scene]).images[0]), f"scene-{n}.png")
        queued.append(client.queue(graph(name, scene.objects[0].kind, n)))
    deadline = time.monotonic() + PATIENCE
    for n, one in enumerate(queued):
        while not (entry := client.get(f"/history/{one}").get(one)):
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"run {n + 1} has not ended after {PATIENCE:.0f} s: {server.log_text()[-500:]}"
                )
            time.sleep(0.1)
        if entry["status"]["status_str"] != "success":
            raise RuntimeError(f"run {n + 1} failed: {entry['status']}")
        yield resident(server)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100, help="more than ten")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    if options.runs <= 10:
        parser.error(f"--runs is {options.runs}; it must be more than 10")
    hosts = find_hosts()
    if not hosts:
        parser.error("there is no ComfyUI; set COMFYUI_PATH to its folder")
    with tempfile.TemporaryDirectory() as name, running(hosts[0], Path(name)) as server:
        after: list[int] = []
        for found in measure(server, options.runs):
            after.append(found)
            print(f"run {len(after)} of {options.runs}: {found / 1e6:.0f} MB", file=sys.stderr, flush=True)
            # From the tenth on after every one: what is stopped leaves its figures, and says of how many.
            if len(after) >= 10:
                settings = {"runs": len(after), "steps": STEPS, "comfyui": hosts[0].version}
                write_results(options.out, figures(after), settings)
    return 0


def figures(after: Sequence[int]) -> dict[str, Any]:
    """Of the memory after each run."""
    growth = round(100 * (after[-1] / after[9] - 1), 2)
    return {
        "tenth": after[9], "last": after[-1], "largest": max(after), "growth_percent": growth,
        "after_each": list(after),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
