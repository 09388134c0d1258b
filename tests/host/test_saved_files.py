"""What the pack wrote, loaded by the core's own nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from graphs import COMPOSE, DEMO, WORKFLOWS, Draft, find, workflow_graph

from ice_core.files.concept_set import load_concept_set
from tools.comfy_client import Client, Run
from tools.comfy_host import Server

if TYPE_CHECKING:
    from tools.comfy_page import Page

Paint = Callable[..., np.ndarray]


@pytest.fixture
def paint(client: Client) -> Paint:
    """A picture by the core's nodes [H, W, 3] uint8, with a LoRA loader in front where one is named."""

    def painted(text: str, loader: str = "", **lora: object) -> np.ndarray:
        draft = Draft()
        wires = draft.demo()
        if loader:
            clip = {"clip": wires["clip"], "strength_clip": 1.0} if loader == "LoraLoader" else {}
            wires["model"] = draft.out(draft.add(loader, model=wires["model"], **clip, **lora))
        saving = draft.paint(wires, text)
        run = client.run(draft.graph)
        assert run.status == "success", run.error
        return np.asarray(client.pictures(run, saving)[0])

    return painted


@pytest.fixture
def embedding(demo_run: Run, server: Server) -> str:
    folder = server.models("embeddings")
    path: Path = sorted(folder.glob("ice/demo/*_*.safetensors"))[0]
    return path.relative_to(folder).with_suffix("").as_posix()


@pytest.fixture
def lora(demo_run: Run, server: Server) -> str:
    folder = server.models("loras")
    return sorted(folder.glob("ice/**/*.safetensors"))[0].relative_to(folder).as_posix()


def test_clip_text_encode_knows_a_saved_embedding(paint: Paint, embedding: str, server: Server) -> None:
    written = paint(f"a photo of embedding:{embedding}")

    assert (written != paint("a photo of")).any()
    assert f"{embedding} does not exist" not in server.log_text()
    assert "shape mismatch when trying to apply embedding" not in server.log_text()


def test_saved_names_are_what_a_prompt_takes(demo_run: Run, server: Server) -> None:
    (shown,) = demo_run.executed[find(workflow_graph(DEMO), "ICESaveConcepts")]["text"]
    names = [line for line in shown.split("\n") if line.startswith("embedding:")]
    folder = server.models("embeddings")

    assert names
    for name in names:
        assert (folder / f"{name.removeprefix('embedding:')}.safetensors").is_file(), name


def test_a_save_holds_a_concept_set_that_loads_with_everything(
    demo_run: Run, client: Client, server: Server
) -> None:
    (shown,) = demo_run.executed[find(workflow_graph(DEMO), "ICESaveConcepts")]["text"]
    assert "concept set: ice/demo/concepts.safetensors" in shown.split("\n")
    saved = load_concept_set(server.models("embeddings") / "ice" / "demo" / "concepts.safetensors")
    assert {one.key for one in saved.found} == {one.key for one in saved.learned.concepts}
    assert set(saved.thumbnails) > set(saved.learned.tokens)
    assert saved.sheet is not None
    assert saved.picture is not None

    draft = Draft()
    loader = draft.add("ICELoadConcepts", folder="embeddings/ice/demo/concepts.safetensors")
    draft.add("ICESaveConcepts", learned=draft.out(loader), folder="ice/again", destination="output")
    run = client.run(draft.graph)

    assert run.status == "success", run.error
    again = load_concept_set(server.output / "ice" / "again" / "concepts.safetensors")
    assert again.learned.tokens.keys() == saved.learned.tokens.keys()
    assert (again.sheet, again.picture) == (saved.sheet, saved.picture)


@pytest.mark.parametrize("loader", ["LoraLoader", "LoraLoaderModelOnly"])
def test_core_loaders_apply_the_saved_refinement(
    paint: Paint, lora: str, loader: str, server: Server
) -> None:
    plain = paint("a photo of a ball")

    off = paint("a photo of a ball", loader, lora_name=lora, strength_model=0.0)
    on = paint("a photo of a ball", loader, lora_name=lora, strength_model=20.0)

    assert (off == plain).all()
    assert (on != plain).any()
    assert "lora key not loaded" not in server.log_text()


def test_a_completion_shows_the_thumbnail_of_a_saved_token(page: Page, demo_run: Run) -> None:
    page.load((WORKFLOWS / f"{COMPOSE}.json").read_text(encoding="utf-8"))
    page.ask(
        "const node = app.graph._nodes.find(n => n.type === 'ICEConceptComposer');"
        "const area = node.widgets.find(w => w.name === 'prompt').inputEl;"
        "area.value = arguments[0]; area.setSelectionRange(1e6, 1e6);"
        "area.dispatchEvent(new Event('input', {bubbles: true}));",
        "a photo of a {a.cone.c",
    )
    picture = "document.querySelector('.ice-completion img')"
    page.wait(f"return {picture}?.naturalWidth > 0;", 60)
    assert page.ask(f"return {picture}.parentElement.textContent;") == "a.cone.color"
