"""Workflow 1, the whole method, through the API of a real server."""

from __future__ import annotations

import json

import pytest
from graphs import demo_graph, find
from PIL import Image, ImageStat
from safetensors import safe_open

from tools.comfy_client import Client, Graph, Run
from tools.comfy_host import Server


@pytest.fixture(scope="module")
def graph() -> Graph:
    return demo_graph()


def blank(picture: Image.Image) -> bool:
    return max(ImageStat.Stat(picture).stddev) < 2


def test_runs_to_its_end(demo_run: Run) -> None:
    assert demo_run.status == "success", json.dumps(demo_run.error)[:2000]


def test_reports_progress_and_shows_previews_while_it_trains(demo_run: Run, graph: Graph) -> None:
    trainer = find(graph, "ICEIntrinsicTrainer")
    seen = [(value, most) for node, value, most in demo_run.progress if node == trainer]
    values = [value for value, _ in seen]

    assert len(values) >= 8
    assert values == sorted(values)
    assert seen[-1][0] == seen[-1][1]
    assert demo_run.previews > 0


def test_every_picture_shows_something(demo_run: Run, client: Client, graph: Graph) -> None:
    shown = {id_: output for id_, output in demo_run.executed.items() if output.get("images")}

    assert find(graph, "SaveImage") in shown
    for node in shown:
        for picture in client.pictures(demo_run, node):
            assert not blank(picture), graph[node]["class_type"]


def test_writes_a_file_per_token_and_the_refinement(demo_run: Run, server: Server) -> None:
    saved = sorted(server.models("embeddings").glob("ice/demo/**/*.safetensors"))
    (concept_set,) = (path for path in saved if path.name == "concepts.safetensors")
    embeddings = [path for path in saved if path != concept_set]
    loras = sorted(server.models("loras").glob("ice/**/*.safetensors"))

    assert len(embeddings) >= 4
    for path in embeddings:
        with safe_open(path, "pt") as file:
            rows = file.get_tensor("emb_params")
            assert rows.ndim == 2
            assert rows.isfinite().all()
            assert file.metadata()["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"
    assert len(loras) == 1
    with safe_open(loras[0], "pt") as file:
        assert any(name.endswith(".lora_down.weight") for name in file.keys())  # noqa: SIM118
        assert file.metadata()["modelspec.architecture"] == "stable-diffusion-v1/lora"


def test_same_graph_again_is_served_from_cache(demo_run: Run, client: Client, graph: Graph) -> None:
    client.run(graph)  # older hosts keep the results of the last graph alone, which may be another test's
    again = client.run(graph)

    assert again.status == "success"
    assert set(graph) == again.cached
    assert not again.progress
