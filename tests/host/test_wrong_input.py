"""What a user can get wrong comes back as that node's error, in our words, and the server lives on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from graphs import Draft
from safetensors import safe_open
from safetensors.torch import save_file

from tools.comfy_client import Client, Graph, Refused, Run
from tools.comfy_host import Server


@pytest.fixture(autouse=True)
def _server_lives_on(client: Client) -> Iterator[None]:
    yield
    draft = Draft()
    scene = draft.add("ICEDemoScene", seed=1, objects=1)
    draft.add("PreviewImage", images=draft.out(scene))
    assert client.run(draft.graph).status == "success"


def complaint(client: Client, graph: Graph, node: str) -> str:
    """The error that one node reports, before the queue runs or while it does."""
    refusal, run = attempt(client, graph)
    if refusal is not None:
        errors = refusal["node_errors"]
        assert set(errors) == {node}, refusal
        return "\n".join(f"{error['message']}: {error['details']}" for error in errors[node]["errors"])
    assert run is not None
    assert run.status == "error"
    assert run.error["node_id"] == node, run.error
    assert run.error["exception_type"].endswith("IceError"), run.error
    return str(run.error["exception_message"])


def attempt(client: Client, graph: Graph) -> tuple[dict[str, Any] | None, Run | None]:
    """Why the server refused a graph, or what became of it."""
    try:
        return None, client.run(graph)
    except Refused as refused:
        return refused.reply, None


def segmented(**inputs: object) -> tuple[Graph, str]:
    """The segmentor on a grey picture."""
    draft = Draft()
    wires = draft.demo()
    grey = draft.add("EmptyImage", width=128, height=128, batch_size=1, color=0x808080)
    segmentor = draft.localize(wires, draft.out(grey), **inputs)
    draft.add("PreviewImage", images=draft.out(segmentor, 3))
    return draft.graph, segmentor


def test_no_object_found(client: Client) -> None:
    text = complaint(client, *segmented(labels="ball", min_area=0.9))

    assert "no object" in text.lower()


def test_no_words(client: Client) -> None:
    text = complaint(client, *segmented(labels="  "))

    assert "`labels` is empty: name the objects" in text


def test_fewer_words_than_masks(client: Client) -> None:
    draft = Draft()
    wires = draft.demo()
    scene = draft.add("ICEDemoScene", seed=3, objects=2)
    segmentor = draft.localize(
        wires, draft.out(scene), mode="given masks", labels="ball", masks=draft.out(scene, 1)
    )
    draft.add("PreviewImage", images=draft.out(segmentor, 3))

    text = complaint(client, draft.graph, segmentor)

    assert "2" in text
    assert "1" in text


def test_model_of_another_family(client: Client, server: Server) -> None:
    folder = server.models("diffusion_models")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(flux_like(), folder / "flux-like.safetensors")
    draft = Draft()
    wires = draft.demo()
    flux = draft.add("UNETLoader", unet_name="flux-like.safetensors", weight_dtype="default")
    scene = draft.add("ICEDemoScene", seed=3, objects=2)
    segmentor = draft.localize(wires | {"model": draft.out(flux)}, draft.out(scene), labels="ball")
    draft.add("PreviewImage", images=draft.out(segmentor, 3))

    text = complaint(client, draft.graph, segmentor)

    assert "Stable Diffusion 1" in text


def flux_like() -> dict[str, torch.Tensor]:
    """As much of a Flux file as makes the host build a Flux model; the rest of its weights stays random."""
    shapes = {
        "img_in.weight": (3072, 64),
        "txt_in.weight": (3072, 4096),
        "vector_in.in_layer.weight": (3072, 768),
        "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
    }
    return {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}


def test_concepts_of_a_wider_model(demo_run: Run, client: Client, server: Server) -> None:
    embeddings = server.models("embeddings") / "ice"
    widen(embeddings / "demo", embeddings / "wider")
    draft = Draft()
    clip = draft.demo()["clip"]
    loaded = draft.add("ICELoadConcepts", folder="embeddings/ice/wider")
    composer = draft.add("ICEConceptComposer", clip=clip, prompt="a photo of a ball", a=draft.out(loaded))
    draft.add("PreviewAny", source=draft.out(composer, 1))

    text = complaint(client, draft.graph, composer)

    assert "1024" in text


def widen(folder: Path, to: Path) -> None:
    """The same saved concepts with rows as wide as those of Stable Diffusion 2."""
    to.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            save_file({"emb_params": torch.zeros(1, 1024)}, to / path.name, file.metadata())


def test_placeholder_that_does_not_exist(demo_run: Run, client: Client) -> None:
    draft = Draft()
    clip = draft.demo()["clip"]
    loaded = draft.add("ICELoadConcepts", folder="embeddings/ice/demo")
    composer = draft.add(
        "ICEConceptComposer", clip=clip, prompt="a photo of {a.teapot.object}", a=draft.out(loaded)
    )
    draft.add("PreviewAny", source=draft.out(composer, 1))

    text = complaint(client, draft.graph, composer)

    assert "teapot.object" in text
    assert ".color" in text
