"""The example workflows fit the server's nodes, and run."""

from __future__ import annotations

import io
import json
import urllib.parse

import pytest
from graphs import WORKFLOWS, find, quick, with_demo_model, workflow_graph
from PIL import Image

from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene
from tools.comfy_client import Client, Run
from tools.comfy_graph import api_form, disagreements
from tools.workflow_designs import DEMO_SEED

TITLES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))


def test_there_are_four() -> None:
    assert len(TITLES) == 4


@pytest.mark.parametrize("title", TITLES)
def test_page_form_fits_the_nodes(client: Client, title: str) -> None:
    workflow = json.loads((WORKFLOWS / f"{title}.json").read_text(encoding="utf-8"))

    assert workflow["version"] == 0.4
    assert list(disagreements(workflow, client.get("/object_info"))) == []


@pytest.mark.parametrize("title", TITLES)
def test_api_form_is_what_the_page_would_send(client: Client, title: str) -> None:
    object_info = client.get("/object_info")
    workflow = json.loads((WORKFLOWS / f"{title}.json").read_text(encoding="utf-8"))
    sent, saved = api_form(workflow, object_info), workflow_graph(title)

    assert sent.keys() == saved.keys()
    for id_, node in sent.items():
        kept = {name: value for name, value in saved[id_]["inputs"].items() if name in node["inputs"]}
        assert (saved[id_]["class_type"], kept) == (node["class_type"], node["inputs"])


@pytest.mark.parametrize("title", TITLES)
def test_template_browser_shows_it_with_a_thumbnail(client: Client, title: str) -> None:
    assert title in client.get("/workflow_templates")["comfyui-ice"]

    folder = "/api/workflow_templates/comfyui-ice"
    name = urllib.parse.quote(title)
    assert client.get(f"{folder}/{name}.json")["nodes"]
    with Image.open(io.BytesIO(client.get_bytes(f"{folder}/{name}.jpg"))) as thumbnail:
        assert thumbnail.format == "JPEG"
        assert min(thumbnail.size) >= 256
    assert (WORKFLOWS / f"{title}.jpg").stat().st_size < 200_000


@pytest.fixture
def photo(client: Client) -> str:
    """Name of an uploaded picture, transparent where the first of its two objects is."""
    rendered = render([sample_scene(DEMO_SEED, count=2)])
    pixels = (rendered.images[0].movedim(0, -1) * 255).round().byte().numpy()
    picture = Image.fromarray(pixels)
    picture.putalpha(Image.fromarray(255 - rendered.masks[0, 0].byte().mul(255).numpy()))
    return client.upload(picture, "ice-test-photo.png")


def test_extracting_from_a_photo_runs(client: Client, photo: str) -> None:
    graph = with_demo_model(quick(workflow_graph("2 - Extract concepts from your photo")))
    graph[find(graph, "LoadImage")]["inputs"]["image"] = photo
    graph[find(graph, "ICEConceptRetriever")]["inputs"]["source"] = "bundled demo CLIP"

    run = client.run(graph)

    assert run.status == "success", run.error


def test_composing_runs_on_what_the_demo_saved(demo_run: Run, client: Client) -> None:
    graph = quick(workflow_graph("3 - Compose learned concepts"))

    run = client.run(graph)

    assert run.status == "success", run.error
    assert len(client.pictures(run, find(graph, "SaveImage"))) == 4


def test_own_masks_run(client: Client, photo: str) -> None:
    graph = with_demo_model(quick(workflow_graph("4 - Bring your own masks")))
    graph[find(graph, "LoadImage")]["inputs"]["image"] = photo

    run = client.run(graph)

    assert run.status == "success", run.error
