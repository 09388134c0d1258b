"""Takes the pictures of the library's panel and of its node.

    python tools/library_pictures.py     # docs/library-panel.jpg, web/docs/ICELibraryConcept.jpg

Scenes of the bundled world are taken apart into a library, which a ComfyUI shows (COMFYUI_PATH, see
tools/comfy_host.py). Needs Debian's chromium.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if (_root := str(Path(__file__).absolute().parents[1])) not in sys.path:
    sys.path.append(_root)

from ice_core.files.images import save_png
from ice_core.library.place import NAME
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene
from tools.comfy_host import PACK, find_hosts, running

if TYPE_CHECKING:
    from tools.comfy_page import Page

SCENES = 16
PANEL = PACK / "docs" / "library-panel.jpg"
NODE = PACK / "web" / "docs" / "ICELibraryConcept.jpg"
EMPTY = json.dumps({"nodes": [], "links": [], "last_node_id": 0, "last_link_id": 0, "version": 0.4})
SIZE = (1200, 800)


def fill(library: Path, pictures: Path) -> None:
    """A library of what is on rendered scenes, its tokens as words."""
    for seed in range(SCENES):
        save_png(render([sample_scene(seed, count=2)]).images[0], pictures / f"scene-{seed}.png")
    batch = ["batch", str(pictures), "--library", str(library), "--method", "words"]
    subprocess.run([sys.executable, "-m", "ice_core.command_line.cli", *batch], check=True, cwd=PACK)


def photograph(page: Page) -> None:
    """The panel with a concept opened and put into the graph, and the node as it is after a run."""
    load = f"app.loadGraphData(JSON.parse({EMPTY!r}), true, true);"
    page.resize(*SIZE)
    page.ask(load)
    page.ask("document.querySelector('.ice-library-tab-button').click();")
    page.wait("return document.querySelectorAll('.ice-library-cell img').length > 12;")
    pictures = "[...document.querySelectorAll('.ice-library-cell img')].slice(0, 12)"
    page.wait(f"return {pictures}.every(one => one.complete);")
    page.ask("document.querySelector('.ice-library-cell .ice-library-add').click();")
    time.sleep(1)
    page.screenshot(PANEL)
    page.ask(
        """
        const shows = LiteGraph.createNode('PreviewAny'), node = app.graph._nodes[0];
        shows.pos = [node.pos[0] + 400, node.pos[1]];
        app.graph.add(shows);
        node.setSize([node.size[0], 330]);
        node.connect(1, shows, 0);
        document.querySelector('.ice-library-tab-button').click();
        """
    )
    page.run()
    page.node_picture(int(page.nodes()[0]["id"]), NODE)


def main() -> int:
    from tools.comfy_page import opened

    if not (hosts := find_hosts()):
        print("error: there is no ComfyUI; set COMFYUI_PATH to its folder", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as pictures, tempfile.TemporaryDirectory() as folder:
        fill(Path(folder) / NAME, Path(pictures))
        with running(hosts[0], Path(folder)) as server, opened(server.url) as page:
            photograph(page)
    print(PANEL, NODE, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
