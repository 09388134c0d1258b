"""An example workflow on other families than Stable Diffusion 1, from the picture to a drawing and back.

The models are small and random: what is drawn means nothing, that it is drawn does.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphs import SDXL, Draft, find, quick, workflow_graph
from safetensors import safe_open
from tiny_families import tiny_family

from ice_core.files.concept_set import load_concept_set
from tools.comfy_client import Client, Graph
from tools.comfy_host import Host, Server, running
from tools.make_workflows import stand_in
from tools.workflow_designs import PHOTO

NODE = Path(__file__).with_name("tiny_checkpoint_node.py")
ARCHITECTURES = {
    "sd2-v": "stable-diffusion-v2-768-v",
    "sdxl": "stable-diffusion-xl-v1-base",
}


@pytest.fixture(scope="module")
def server(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a loader of models that are smaller than hosts take by themselves."""
    folder = tmp_path_factory.mktemp(f"families-{host.version}")
    for part in ("custom_nodes", "models/checkpoints"):
        (folder / part).mkdir(parents=True)
    (folder / "custom_nodes" / NODE.name).symlink_to(NODE)
    for name in ARCHITECTURES:
        tiny_family(name).write(folder / "models" / "checkpoints" / f"{name}.safetensors")
    with running(host, folder) as started:
        yield started


def with_tiny_model(graph: Graph, name: str) -> Graph:
    """The same graph with a small model of a family, which draws small pictures."""
    made = copy.deepcopy(graph)
    for node in made.values():
        if node["class_type"] == "CheckpointLoaderSimple":
            node |= {"class_type": "LoadTinyCheckpoint", "inputs": {"ckpt_name": f"{name}.safetensors"}}
        elif node["class_type"] == "EmptyLatentImage":
            node["inputs"] |= {"width": 64, "height": 64}
        elif node["class_type"] == "ICESaveConcepts":
            node["inputs"]["folder"] = f"ice/{name}"
        elif node["class_type"] == "ICEAttentionSegmentor":
            # A random model finds no cup; what is transparent in the picture is one.
            masks = [find(graph, "LoadImage"), 1]
            node["inputs"] |= {"mode": "given masks", "masks": masks, "refine_masks": True}
        elif node["class_type"] == "ICEIntrinsicTrainer":
            # Nor does it read anything that a prompt could name.
            node["inputs"]["overrule"] = "cup.material=metal"
    return made


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_example_workflow_runs_and_its_files_are_used_again(server: Server, name: str) -> None:
    client = Client(server.url)
    client.upload(stand_in(), PHOTO)
    graph = with_tiny_model(quick(workflow_graph(SDXL)), name)
    run = client.run(graph)
    assert run.status == "success", run.error.get("exception_message")
    (picture,) = client.pictures(run, find(graph, "SaveImage"))
    assert picture.size == (64, 64)

    folder = server.models("embeddings") / "ice" / name
    tokens = sorted(path for path in folder.rglob("*.safetensors") if path.name != "concepts.safetensors")
    assert tokens
    encoders = {"clip_h"} if name == "sd2-v" else {"clip_l", "clip_g"}
    saved = load_concept_set(folder / "concepts.safetensors")
    assert all(set(token.rows) == encoders for token in saved.learned.tokens.values())
    for path in tokens:
        with safe_open(path, "pt") as file:
            assert file.metadata()["modelspec.architecture"] == f"{ARCHITECTURES[name]}/textual-inversion"

    # By anyone's prompt, and by the Composer from the set.
    word = tokens[0].relative_to(server.models("embeddings")).with_suffix("").as_posix()
    draft = Draft()
    loader = draft.add("LoadTinyCheckpoint", ckpt_name=f"{name}.safetensors")
    wires = {wire: Draft.out(loader, n) for n, wire in enumerate(("model", "clip", "vae"))}
    drawn = draft.paint(wires, f"a photo of a embedding:{word} chair")
    loaded = draft.add("ICELoadConcepts", folder=f"embeddings/ice/{name}/concepts.safetensors")
    prompt = graph[find(graph, "ICEConceptComposer")]["inputs"]["prompt"]
    composed = draft.add("ICEConceptComposer", clip=wires["clip"], a=Draft.out(loaded), prompt=prompt)
    sampler = find(draft.graph, "KSampler")
    draft.graph[sampler]["inputs"]["negative"] = Draft.out(composed)
    again = client.run(draft.graph)
    assert again.status == "success", again.error.get("exception_message")
    assert len(client.pictures(again, drawn)) == 1
    assert f"{word} does not exist" not in server.log_text()
    assert "shape mismatch when trying to apply embedding" not in server.log_text()
