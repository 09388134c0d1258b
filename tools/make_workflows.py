"""Writes the example workflows, in the forms of ComfyUI's page and of its API, and takes their pictures.

    python tools/make_workflows.py               # workflows/*.json and workflows/api/*.json
    python tools/make_workflows.py --pictures    # runs the demo and photographs workflows and nodes

Needs a ComfyUI (COMFYUI_PATH, see tools/comfy_host.py) to read the nodes' fields from; the pictures need
Debian's chromium and the dependency group `browser`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

if (_root := str(Path(__file__).absolute().parents[1])) not in sys.path:
    sys.path.append(_root)

from ice_core.files.images import to_pil
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene
from tools.comfy_client import Client
from tools.comfy_host import PACK, Server, find_hosts, running
from tools.workflow_designs import CHECKPOINT, DEMO_SEED, DESIGNS, PHOTO

WORKFLOWS = PACK / "workflows"
HELP = PACK / "web" / "docs"
"""The nodes' help pages, each with its picture beside it."""
SCREENSHOT = PACK / "docs" / "comfyui-demo.png"
THUMBNAIL_SIDE = 800


def write_workflows(server: Server) -> list[str]:
    """Both forms of every design; returns their titles."""
    object_info = Client(server.url).get("/object_info")
    titles = []
    (WORKFLOWS / "api").mkdir(parents=True, exist_ok=True)
    for design in DESIGNS.values():
        sheet = design(object_info)
        for path, value in (
            (WORKFLOWS / f"{sheet.title}.json", sheet.workflow()),
            (WORKFLOWS / "api" / f"{sheet.title}.json", sheet.prompt()),
        ):
            text = json.dumps(value, indent=1, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8")
            print(path)
        titles.append(sheet.title)
    return titles


def take_pictures(server: Server, titles: Sequence[str]) -> None:
    """Photographs every workflow and every node; those that need no download are run first."""
    from tools.comfy_page import SIZE, opened

    put_stand_ins(server)
    pictured: set[str] = set()
    with opened(server.url) as page:
        for n, title in enumerate(titles):
            page.load((WORKFLOWS / f"{title}.json").read_text(encoding="utf-8"))
            runs = not any(node["type"] == "CheckpointLoaderSimple" for node in page.nodes())
            if runs:
                print(f"{title}: {page.run():.0f} s")
            if n == 0:
                page.screenshot(SCREENSHOT)
            page.thumbnail(WORKFLOWS / f"{title}.jpg", THUMBNAIL_SIDE)
            if not runs:
                continue
            page.resize(SIZE[0], 2 * SIZE[1])
            for node in page.nodes():
                if node["type"].startswith("ICE") and node["type"] not in pictured:
                    page.node_picture(node["id"], HELP / f"{node['type']}.jpg")
                    pictured.add(node["type"])
            page.resize(*SIZE)


def put_stand_ins(server: Server) -> None:
    """Files of the names that the workflows load, so that the page marks nothing as missing."""
    checkpoints = server.models("checkpoints")
    checkpoints.mkdir(parents=True, exist_ok=True)
    (checkpoints / CHECKPOINT).touch()
    rendered = render([sample_scene(DEMO_SEED, count=2)])
    Client(server.url).upload(to_pil(rendered.images[0]), PHOTO)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", action="store_true", help="run the demo and take the pictures, too")
    options = parser.parse_args(arguments)
    hosts = find_hosts()
    if not hosts:
        print("error: there is no ComfyUI; set COMFYUI_PATH to its folder", file=sys.stderr)
        return 2
    newest = max(hosts, key=lambda host: [int(part) for part in host.version.split(".") if part.isdigit()])
    with tempfile.TemporaryDirectory() as folder, running(newest, Path(folder)) as server:
        titles = write_workflows(server)
        if options.pictures:
            take_pictures(server, titles)
    return 0


if __name__ == "__main__":
    sys.exit(main())
