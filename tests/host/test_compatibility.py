"""Workflows that people saved with earlier releases load, and run, with the nodes of today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graphs import find, quick

from tools.comfy_client import Client
from tools.comfy_graph import inputs_of, is_ours, is_widget

ON_DISK = {("ICELoadConcepts", "folder")}
"""Fields whose choices are what lies on the server's disk, which is not that of the person who saved."""
SAVED = sorted(path for path in (Path(__file__).parent / "saved").glob("*/*.json") if "_api" not in path.stem)


def workflow(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


@pytest.mark.parametrize("path", SAVED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_nodes_of_a_saved_workflow_are_there_with_their_slots(client: Client, path: Path) -> None:
    object_info = client.get("/object_info")
    for node in workflow(path)["nodes"]:
        if not node["type"].startswith("ICE"):
            continue
        definition = object_info[node["type"]]
        assert is_ours(definition)
        known = inputs_of(definition)
        for slot in node["inputs"]:
            assert known[slot["name"]][0] == slot["type"]
        # Outputs are linked by their place, so new ones come last.
        names = [slot["name"] for slot in node["outputs"]]
        assert definition["output_name"][: len(names)] == names


@pytest.mark.parametrize("path", SAVED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_values_of_a_saved_workflow_are_those_of_the_same_fields(client: Client, path: Path) -> None:
    """The page keeps values by their place: new fields come last."""
    object_info = client.get("/object_info")
    kinds = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}
    for node in workflow(path)["nodes"]:
        if not node["type"].startswith("ICE"):
            continue
        values = [value for value in node["widgets_values"] if value != "fixed"]
        fields = [one for one in inputs_of(object_info[node["type"]]).items() if is_widget(*one[1])]
        assert len(fields) >= len(values)
        for value, (name, (kind, options)) in zip(values, fields, strict=False):
            if (node["type"], name) in ON_DISK:
                assert kind == "COMBO"
                assert isinstance(value, str)
            elif kind == "COMBO":
                assert value in options["options"] or not options["options"], f"{node['type']} {name}"
            else:
                assert isinstance(value, kinds[kind]), f"{node['type']} {name}"


def test_a_prompt_of_the_first_release_runs(client: Client) -> None:
    path = Path(__file__).parent / "saved" / "0.1.0" / "demo_api.json"
    graph = quick(workflow(path))
    # Nothing of it may come from the cache to the tests of today's demo, nor lie among their files.
    graph[find(graph, "ICEIntrinsicTrainer")]["inputs"]["seed"] = 5
    graph[find(graph, "ICESaveConcepts")]["inputs"]["folder"] = "earlier/demo"
    run = client.run(graph)

    assert run.status == "success", run.error
