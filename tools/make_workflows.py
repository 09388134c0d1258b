"""Writes example workflows and blueprints, in the forms of ComfyUI's page and API, and takes their pictures.

    python tools/make_workflows.py               # workflows/*.json, workflows/api/*.json, subgraphs/*.json
    python tools/make_workflows.py --pictures    # runs them with the demo's model, photographs all

Needs a ComfyUI (COMFYUI_PATH, see tools/comfy_host.py) to read the nodes' fields from; the pictures need
Debian's chromium.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if (_root := str(Path(__file__).absolute().parents[1])) not in sys.path:
    sys.path.append(_root)

from PIL import Image

from ice_core.files.images import to_pil
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene
from tools.comfy_client import Client
from tools.comfy_host import PACK, Server, find_hosts, running
from tools.workflow_blueprints import BLUEPRINTS, blueprint
from tools.workflow_designs import CHECKPOINT, DEMO_SEED, DESIGNS, PHOTO, XL_CHECKPOINT, reading
from tools.workflow_results import result_picture

if TYPE_CHECKING:
    from tools.comfy_page import Page

WORKFLOWS, SUBGRAPHS = PACK / "workflows", PACK / "subgraphs"
HELP = PACK / "web" / "docs"
"""The nodes' help pages, each with its picture beside it."""
DOCS = PACK / "docs"
THUMBNAIL_SIDE = 640


def write_workflows(server: Server) -> list[str]:
    """Both forms of every design, and the blueprints; returns the designs' titles."""
    object_info = Client(server.url).get("/object_info")
    titles = []
    for design in DESIGNS.values():
        sheet = design(object_info)
        _write(WORKFLOWS / f"{sheet.title}.json", sheet.workflow())
        _write(WORKFLOWS / "api" / f"{sheet.title}.json", sheet.prompt())
        titles.append(sheet.title)
    for name in BLUEPRINTS:
        _write(SUBGRAPHS / f"{name}.json", blueprint(object_info, name))
    return titles


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path)


def take_pictures(server: Server, titles: Sequence[str]) -> None:
    """Photographs every workflow as it opens and every node, and shows what each workflow is for.

    Those that need a checkpoint are run with the demo's model for that, and photographed as they are.
    """
    from tools.comfy_page import opened

    put_stand_ins(server)
    client, pictured = Client(server.url), set[str]()
    with opened(server.url) as page:
        for n, title in enumerate(titles):
            page.open_template(title)
            page.wait_for_pictures()
            runs = not any(node["type"] == "CheckpointLoaderSimple" for node in page.nodes())
            if runs:
                print(f"{title}: {page.run(1800):.0f} s", flush=True)
            page.screenshot(DOCS / f"workflow-{n + 1}.jpg")
            if not runs:
                continue
            pictured |= picture_nodes(page, pictured)
        page.load(json.dumps(reading(client.get("/object_info")).workflow()))
        page.run(1800)
        picture_nodes(page, pictured)
    for title in titles:
        graph = json.loads((WORKFLOWS / "api" / f"{title}.json").read_text(encoding="utf-8"))
        path = WORKFLOWS / f"{title}.jpg"
        result_picture(client, graph, THUMBNAIL_SIDE).save(path, quality=88, optimize=True)
        print(path)


def picture_nodes(page: Page, pictured: set[str]) -> set[str]:
    """A picture of each of this pack's nodes on the page for its help, but of those that have one."""
    from tools.comfy_page import SIZE

    page.resize(SIZE[0], 2 * SIZE[1])
    new = {node["type"]: node["id"] for node in page.nodes() if node["type"].startswith("ICE")}
    for kind in new.keys() - pictured:
        page.node_picture(new[kind], HELP / f"{kind}.jpg")
    page.resize(*SIZE)
    return set(new)


def put_stand_ins(server: Server) -> None:
    """Files of the names that the workflows load, so that the page marks nothing as missing."""
    checkpoints = server.models("checkpoints")
    checkpoints.mkdir(parents=True, exist_ok=True)
    for name in (CHECKPOINT, XL_CHECKPOINT):
        (checkpoints / name).touch()
    Client(server.url).upload(stand_in(), PHOTO)


def stand_in() -> Image.Image:
    """A scene of the demo's world in the place of a photograph, transparent where its first object is."""
    rendered = render([sample_scene(DEMO_SEED, count=2)])
    picture = to_pil(rendered.images[0])
    picture.putalpha(to_pil(1 - rendered.masks[0, 0].float()).convert("L"))
    return picture


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", action="store_true", help="run them and take the pictures, too")
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
