"""The demo workflow, opened in ComfyUI's own page in Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from graphs import DEMO, WORKFLOWS

from tools.comfy_client import Client
from tools.comfy_graph import NOTES, widget_values
from tools.comfy_host import Server

if TYPE_CHECKING:
    from tools.comfy_page import Page

TITLES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Page]:
    pytest.importorskip("selenium", reason="install the dependency group browser: uv sync --group browser")
    from tools.comfy_page import missing, opened

    if (problem := missing()) is not None:
        pytest.skip(problem)
    with opened(server.url) as started:
        yield started


def saved(title: str) -> dict[str, Any]:
    workflow: dict[str, Any] = json.loads((WORKFLOWS / f"{title}.json").read_text(encoding="utf-8"))
    return workflow


@pytest.mark.parametrize("title", TITLES)
def test_page_draws_every_node_with_the_values_of_the_file(page: Page, client: Client, title: str) -> None:
    workflow, object_info = saved(title), client.get("/object_info")
    page.load(json.dumps(workflow))
    drawn = {int(node["id"]): node for node in page.nodes()}

    assert drawn.keys() == {node["id"] for node in workflow["nodes"]}
    for node in workflow["nodes"]:
        shown = drawn[node["id"]]
        assert shown["type"] == node["type"]
        assert not shown["missing"], node["type"]
        if node["type"] in NOTES:
            continue
        fields = dict(shown["widgets"])
        for name, value in widget_values(node, object_info[node["type"]]).items():
            assert fields[name] == value, f"{node['type']} {name}"


@pytest.mark.parametrize("title", TITLES)
def test_page_keeps_every_link(page: Page, title: str) -> None:
    workflow = saved(title)
    page.load(json.dumps(workflow))
    names = {node["id"]: [slot["name"] for slot in node["inputs"]] for node in workflow["nodes"]}
    wanted = {(origin, slot, target, names[target][n]) for _, origin, slot, target, n, _ in workflow["links"]}

    assert {tuple(link) for link in page.links()} == wanted


def test_template_browser_opens_the_demo(page: Page) -> None:
    page.open_template(DEMO)

    assert {node["type"] for node in page.nodes()} == {node["type"] for node in saved(DEMO)["nodes"]}
