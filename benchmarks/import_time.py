"""What importing the pack adds to ComfyUI's start: seconds, modules, and whether a model came with it.

    python benchmarks/import_time.py --out benchmarks/results/import_time.json

ComfyUI's own loader imports the pack in a fresh process of the host's Python, after the host's core nodes,
as at a start. The median of --repeats processes counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results import write_results

from tools.comfy_host import PACK, Host, find_hosts

HEAVY = (
    "diffusers",
    "open_clip",
    "transformers",
    "matplotlib",
    "scipy",
    "sklearn",
    "skimage",
    "timm",
    "rich",
)
"""Packages that no node needs before it runs; counted when the pack brings them and the host has not."""

PROBE = """
import asyncio, gc, json, sys, time
sys.argv = ["main.py", "--cpu", "--disable-api-nodes", "--base-directory", sys.argv[2]]
pack = {pack!r}
import comfy.options
comfy.options.enable_args_parsing()
import utils.extra_config, execution, server, nodes, torch

def models():
    return sum(isinstance(thing, torch.nn.Module) for thing in gc.get_objects())

before, had = set(sys.modules), models()
started = time.perf_counter()
loaded = asyncio.run(nodes.load_custom_node(pack))
seconds = time.perf_counter() - started
added = sorted(set(sys.modules) - before)
ours = [name for name in nodes.NODE_CLASS_MAPPINGS if name.startswith("ICE")]
print(json.dumps(dict(loaded=loaded, seconds=seconds, added=added, models=models() - had, nodes=len(ours))))
"""


def probe(host: Host, folder: str) -> dict[str, Any]:
    """One import in a fresh process; RuntimeError when the host could not load the pack."""
    # A link under the name that it has among custom nodes: the host names the module after the folder.
    link = Path(folder) / "comfyui-ice"
    if not link.exists():
        link.symlink_to(PACK, target_is_directory=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(host.python), "-c", PROBE.format(pack=str(link)), "probe", folder],
        cwd=host.path, capture_output=True, text=True, env=environment | {"PYTHONPATH": str(host.path)},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else {}
    if not found.get("loaded"):
        raise RuntimeError(f"ComfyUI {host.version} could not load the pack:\n{done.stderr[-2000:]}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="fresh processes per host")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    hosts = find_hosts()
    if not hosts:
        parser.error("there is no ComfyUI; set COMFYUI_PATH to its folder")
    figures = {}
    for host in hosts:
        with tempfile.TemporaryDirectory() as folder:
            runs = [probe(host, folder) for _ in range(options.repeats)]
        packages = {name.partition(".")[0] for name in runs[0]["added"]}
        figures[host.version] = {
            "import_seconds": round(statistics.median(run["seconds"] for run in runs), 3),
            "nodes": runs[0]["nodes"],
            "modules_added": len(runs[0]["added"]),
            "heavy_packages_added": sorted(packages & set(HEAVY)),
            "torch_modules_added": runs[0]["models"],
        }
    write_results(options.out, figures, {"repeats": options.repeats})
    return 0


if __name__ == "__main__":
    sys.exit(main())
