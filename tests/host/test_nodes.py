"""What the server says of the nodes."""

from __future__ import annotations

import pytest

from tools.comfy_client import Client
from tools.comfy_graph import inputs_of, is_widget
from tools.comfy_host import Server

NODES = {
    "ICEDemoModel": ("MODEL", "CLIP", "VAE"),
    "ICEDemoScene": ("IMAGE", "MASK", "STRING"),
    "ICEConceptRetriever": ("ICE_WORDS", "STRING", "IMAGE"),
    "ICEAttentionSegmentor": ("ICE_CONCEPTS", "MASK", "STRING", "IMAGE", "IMAGE"),
    "ICEIntrinsicTrainer": ("ICE_LEARNED", "LORA_MODEL", "LOSS_MAP", "IMAGE", "IMAGE"),
    "ICEAttributeReader": ("STRING", "IMAGE"),
    "ICEConceptComposer": ("CONDITIONING", "STRING"),
    "ICESaveConcepts": ("STRING",),
    "ICELoadConcepts": ("ICE_LEARNED", "STRING"),
    "ICELibraryConcept": ("ICE_LEARNED", "STRING"),
}


def test_pack_is_loaded_without_a_complaint(server: Server) -> None:
    log = server.log_text()

    assert "comfyui-ice" in log
    assert "IMPORT FAILED" not in log
    assert "Traceback" not in log.split("To see the GUI go to")[0]


def test_server_lists_exactly_these_nodes(client: Client) -> None:
    ours = {name for name in client.get("/object_info") if name.startswith("ICE")}

    assert ours == set(NODES)


@pytest.mark.parametrize("node", NODES)
def test_schema_is_whole(client: Client, node: str) -> None:
    definition = client.get(f"/object_info/{node}")[node]

    assert tuple(definition["output"]) == NODES[node]
    assert len(set(definition["output_name"])) == len(NODES[node])
    assert definition["category"] == "ICE"
    assert definition["display_name"].startswith("ICE ")
    assert len(definition["description"]) > 20
    for name, (kind, options) in inputs_of(definition).items():
        assert options.get("tooltip"), f"{name} has no tooltip"
        if is_widget(kind, options) and kind != "COMBO":
            assert "default" in options, f"{name} has no default"
        if kind in ("INT", "FLOAT"):
            assert options["min"] <= options["default"] <= options["max"], name


@pytest.mark.parametrize("node", NODES)
def test_help_page_is_served(client: Client, node: str) -> None:
    page = client.get_bytes(f"/extensions/comfyui-ice/docs/{node}.md").decode()

    assert len(page) > 100
