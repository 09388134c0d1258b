"""The example workflows fit the server's nodes, and run."""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.parse

import pytest
from graphs import (
    COMPOSE,
    DEMO,
    EXTRACT,
    MASKS,
    MIX,
    SDXL,
    SUBGRAPHS,
    WORKFLOWS,
    find,
    quick,
    workflow_graph,
)
from PIL import Image
from tiny_families import tiny_family

from tools.comfy_client import Client, Run
from tools.comfy_graph import api_form, disagreements
from tools.comfy_host import Server
from tools.make_workflows import stand_in
from tools.workflow_blueprints import BLUEPRINTS
from tools.workflow_designs import DEMO_SEED, PHOTO
from tools.workflow_results import with_demo_model
from tools.workflow_sheet import Sheet

TITLES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))


def test_every_workflow_is_known() -> None:
    assert set(TITLES) == {DEMO, EXTRACT, MIX, COMPOSE, MASKS, SDXL}


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_blueprints_fit_the_nodes_and_are_offered(client: Client, name: str) -> None:
    blueprint = json.loads((SUBGRAPHS / f"{name}.json").read_text(encoding="utf-8"))
    assert list(disagreements(blueprint, client.get("/object_info"))) == []
    try:
        offered = client.get("/global_subgraphs")
    except urllib.error.HTTPError:
        pytest.skip("this host knows no blueprints of packs")
    mine = [entry for entry in offered.values() if "comfyui-ice" in json.dumps(entry)]
    assert name in {entry["name"] for entry in mine}


def test_files_that_are_not_there_come_with_an_address() -> None:
    for title in (EXTRACT, MIX, MASKS, SDXL):
        workflow = json.loads((WORKFLOWS / f"{title}.json").read_text(encoding="utf-8"))
        (loader,) = [node for node in workflow["nodes"] if node["type"] == "CheckpointLoaderSimple"]
        (model,) = loader["properties"]["models"]
        assert model["name"] == loader["widgets_values"][0]
        assert model["url"].endswith(model["name"])
        assert model["directory"] == "checkpoints"


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
    return client.upload(stand_in(), PHOTO)


@pytest.mark.parametrize("title", [EXTRACT, MIX, MASKS, SDXL])
def test_workflows_for_photos_run(client: Client, photo: str, title: str) -> None:
    graph = with_demo_model(quick(workflow_graph(title)))

    run = client.run(graph)

    assert run.status == "success", run.error


def test_the_workflow_for_sdxl_draws_as_people_do_with_it() -> None:
    graph = workflow_graph(SDXL)
    sampler, empty = (graph[find(graph, kind)]["inputs"] for kind in ("KSampler", "EmptyLatentImage"))
    assert (empty["width"], empty["height"]) == (1024, 1024)
    assert 20 <= sampler["steps"] <= 40
    assert 4 <= sampler["cfg"] <= 8
    trainer = graph[find(graph, "ICEIntrinsicTrainer")]["inputs"]
    assert (trainer["method"], trainer["gradient_checkpointing"]) == ("anchored", "auto")


def test_the_prompt_for_sdxl_is_valid_with_a_checkpoint_of_it(
    client: Client, server: Server, photo: str
) -> None:
    """As far as the loader, which tells what a file is by the sizes of the true model."""
    graph = workflow_graph(SDXL)
    loader = find(graph, "CheckpointLoaderSimple")
    checkpoints = server.models("checkpoints")
    checkpoints.mkdir(parents=True, exist_ok=True)
    file = tiny_family("sdxl").write(checkpoints / graph[loader]["inputs"]["ckpt_name"])

    run = client.run(graph)

    file.unlink()
    assert run.status == "error"
    assert run.error["node_id"] == loader


def test_blueprints_run_as_nodes(client: Client) -> None:
    object_info = client.get("/object_info")
    extracting, material = (
        json.loads((SUBGRAPHS / f"{name}.json").read_text(encoding="utf-8")) for name in BLUEPRINTS
    )
    sheet = Sheet("Blueprints", object_info)
    model = sheet.add("ICEDemoModel", (0, 0), (200, 100))
    scene = sheet.add("ICEDemoScene", (0, 200), (200, 100), seed=DEMO_SEED, objects=2)
    wires = {name: model[name] for name in ("model", "clip", "vae")}
    taken = sheet.put(extracting, (300, 0), image=scene["image"], **wires)
    drawn = sheet.put(material, (600, 0), a=taken["learned"], b=taken["learned"], **wires)
    sheet.add("SaveImage", (900, 0), (200, 200), images=drawn["image"], filename_prefix="blueprints")
    sheet.add("PreviewImage", (900, 300), (200, 200), images=taken["picture"])
    graph = quick(sheet.prompt())
    graph[find(graph, "ICEAttentionSegmentor")]["inputs"]["labels"] = "cone, cube"
    prompt = "a photo of a {a.cone.material} {b.cube.object}"
    graph[find(graph, "ICEConceptComposer")]["inputs"]["prompt"] = prompt
    graph[find(graph, "EmptyLatentImage")]["inputs"] |= {"width": 128, "height": 128}

    run = client.run(graph)

    assert run.status == "success", run.error
    (picture,) = client.pictures(run, find(graph, "SaveImage"))
    assert picture.size == (128, 128)
    assert client.pictures(run, find(graph, "PreviewImage"))[0].width > 500


def test_composing_runs_on_what_the_demo_saved(demo_run: Run, client: Client) -> None:
    graph = quick(workflow_graph(COMPOSE))

    run = client.run(graph)

    assert run.status == "success", run.error
    assert len(client.pictures(run, find(graph, "SaveImage"))) == 4
