"""The example workflows in ComfyUI's own page, as a person sees them in a window of 1440 x 900."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from graphs import DEMO, EXTRACT, QUICK, REFINE_STEPS, WORKFLOWS
from PIL import Image

from ice_core.files.concept_set import load_concept_set
from tools.comfy_client import Client
from tools.comfy_graph import NOTES, has_control, inputs_of, is_widget, subgraphs_of, widget_values
from tools.comfy_host import Server
from tools.workflow_designs import DEMO_SEED
from tools.workflow_sheet import Sheet

if TYPE_CHECKING:
    from tools.comfy_page import Page

TITLES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))


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
        if node["type"] in {*NOTES, *subgraphs_of(workflow)}:
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


@pytest.mark.parametrize("title", TITLES)
def test_template_opens_readable_and_without_a_complaint(page: Page, title: str) -> None:
    page.complaints()
    page.open_template(title)

    assert [node["type"] for node in page.nodes()] == [node["type"] for node in saved(title)["nodes"]]
    assert not any(node["missing"] for node in page.nodes())
    assert page.zoom() > 0.6, "the page shows no text below 0.57"
    assert page.complaints() == []


def test_the_first_template_is_small(page: Page) -> None:
    assert len(saved(DEMO)["nodes"]) <= 12


def trainer_of(workflow: dict[str, Any]) -> int:
    (found,) = [node["id"] for node in workflow["nodes"] if node["type"] == "ICEIntrinsicTrainer"]
    return int(found)


def quick_demo(client: Client, **trainer: Any) -> dict[str, Any]:
    """The demo as the page saves it, with as few steps as show that it works."""
    workflow, object_info = saved(DEMO), client.get("/object_info")
    changes = {
        **QUICK,
        "ICEIntrinsicTrainer": QUICK["ICEIntrinsicTrainer"] | {"refine_steps": REFINE_STEPS} | trainer,
        # Not among the files that the tests of the demo look at.
        "ICESaveConcepts": {"folder": "page/demo"},
    }
    for nodes in (workflow["nodes"], *(one["nodes"] for one in subgraphs_of(workflow).values())):
        for node in nodes:
            if node["type"] in changes:
                set_fields(node, object_info[node["type"]], changes[node["type"]])
    return workflow


def set_fields(node: dict[str, Any], definition: dict[str, Any], values: dict[str, Any]) -> None:
    """Puts values into a node as the page saves it, after whose seeds stands what happens to them."""
    names: list[str] = []
    for name, (kind, options) in inputs_of(definition).items():
        if is_widget(kind, options):
            names += [name, ""] if has_control(name, kind, options) else [name]
    for name, value in values.items():
        node["widgets_values"][names.index(name)] = value


def test_the_trainer_shows_its_sheet_when_it_is_done(page: Page, client: Client) -> None:
    workflow = quick_demo(client)
    page.load(json.dumps(workflow))
    page.run()
    trainer = trainer_of(workflow)

    shown = page.ask(
        f"const i = app.graph.getNodeById({trainer}).imgs[0]; return [i.naturalWidth, i.naturalHeight];"
    )
    (name,) = page.ask(f"return app.nodeOutputs[{trainer}].images.map(one => one.filename);")
    with Image.open(io.BytesIO(client.get_bytes("/view", filename=name, type="temp"))) as sheet:
        assert tuple(shown) == sheet.size
    saved_pictures = page.ask("return app.graph._nodes.find(n => n.type === 'SaveImage').imgs.length;")
    assert saved_pictures == 4


def test_the_node_tells_what_cancel_kept(page: Page, client: Client) -> None:
    workflow = quick_demo(client, steps=500, method="paper", seed=11)
    trainer = trainer_of(workflow)
    page.load(json.dumps(workflow))
    page.ask("app.queuePrompt(0, 1);")
    page.wait(f"return app.graph.getNodeById({trainer}).progress > 0.01;", 300)
    client.interrupt()
    client.settled()

    told = f"app.graph.getNodeById({trainer}).widgets.map(w => String(w.value))"
    page.wait(f"return {told}.some(text => text.includes('Stopped at step'));", 30)
    lines = [text for text in page.ask(f"return {told};") if "Stopped at step" in text]
    assert "ice/interrupted/" in lines[0]
    kept = page.ask(f"return app.graph.getNodeById({trainer}).serialize().widgets_values;")
    assert not any("Stopped" in str(value) for value in kept), "the line is no setting of the node"


COMPOSER, TRAINER = (
    f"app.graph._nodes.find(n => n.type === '{kind}')"
    for kind in ("ICEConceptComposer", "ICEIntrinsicTrainer")
)
PROMPT = f"{COMPOSER}.widgets.find(w => w.name === 'prompt').inputEl"


def type_into_prompt(page: Page, text: str) -> None:
    page.ask(
        f"const area = {PROMPT}; area.value = arguments[0]; area.setSelectionRange(1e6, 1e6);"
        "area.dispatchEvent(new Event('input', {bubbles: true}));",
        text,
    )


def test_a_placeholder_is_completed_while_it_is_typed(page: Page) -> None:
    page.load(json.dumps(saved(DEMO)))
    type_into_prompt(page, "a photo of a {con")
    offered = "[...document.querySelectorAll('.ice-completion > div')].map(row => row.textContent)"
    page.wait(f"return {offered}.length > 0;", 60)
    assert page.ask(f"return {offered};")[:2] == ["cone", "cone.object"]

    page.ask(f"{PROMPT}.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter'}}));")
    assert page.ask(f"return {PROMPT}.value;") == "a photo of a {cone}"


def test_the_composer_has_an_input_for_the_next_concepts(page: Page) -> None:
    page.load(json.dumps(saved(DEMO)))
    names = f"{COMPOSER}.inputs.map(i => i.name).filter(n => n.length === 1)"
    page.wait(f"return {names}.join() === 'a,b';", 30)
    connect = (
        f"const from = {TRAINER}, to = {COMPOSER};"
        "from.connect(0, to, to.inputs.findIndex(i => i.name === arguments[0]));"
    )
    page.ask(connect, "b")
    page.wait(f"return {names}.join() === 'a,b,c';", 30)
    page.ask(f"const n = {COMPOSER}; n.disconnectInput(n.inputs.findIndex(i => i.name === 'a'));")
    page.wait(f"return {names}.join() === 'a,b,c';", 30)
    page.ask(f"const n = {COMPOSER}; n.disconnectInput(n.inputs.findIndex(i => i.name === 'b'));")
    page.wait(f"return {names}.join() === 'a';", 30)


HELPED = sorted(path.stem for path in (WORKFLOWS.parent / "web" / "docs").glob("*.md"))


@pytest.mark.parametrize("kind", HELPED)
def test_help_opens_with_its_picture(page: Page, kind: str) -> None:
    page.ask(
        "app.graph.clear(); const node = window.LiteGraph.createNode(arguments[0]);"
        "app.graph.add(node); app.canvas.selectNode(node);",
        kind,
    )
    page.wait("return document.querySelector('[data-testid=info-button]')?.offsetParent;", 30)
    page.ask("document.querySelector('[data-testid=info-button]').click();")
    shown = f"[...document.images].find(i => i.src.endsWith('/docs/{kind}.jpg'))"
    page.wait(f"return {shown}?.naturalWidth > 0;", 30)
    page.ask("app.graph.clear();")


def test_a_reading_is_edited_and_used(page: Page, client: Client, server: Server) -> None:
    sheet = Sheet("Edited", client.get("/object_info"))
    model = sheet.add("ICEDemoModel", (0, 0), (200, 100))
    scene = sheet.add("ICEDemoScene", (0, 200), (200, 100), seed=DEMO_SEED, objects=2)
    wires = {name: model[name] for name in ("model", "clip", "vae")}
    found = sheet.add(
        "ICEAttentionSegmentor", (300, 0), (300, 500), image=scene["image"], mode="given masks",
        labels=scene["labels"], masks=scene["masks"], **wires,
    )  # fmt: skip
    reader = sheet.add("ICEAttributeReader", (650, 0), (300, 400), concepts=found["concepts"], **wires)
    learned = sheet.add(
        "ICEIntrinsicTrainer", (1000, 0), (300, 600), image=scene["image"], concepts=found["concepts"],
        overrule=reader["overrule"], method="words", **wires,
    )  # fmt: skip
    sheet.add(
        "ICESaveConcepts", (1350, 0), (300, 300), learned=learned["learned"], folder="edited/reading",
        destination="output",
    )  # fmt: skip
    page.load(json.dumps(sheet.workflow()))
    told = "app.graph._nodes.find(n => n.type === 'ICEAttributeReader').widgets"
    page.ask(
        f"const area = {told}.find(w => w.name === 'overrule').inputEl; area.value = arguments[0];"
        "area.dispatchEvent(new Event('input', {bubbles: true}));",
        "cone.color=blue",
    )
    page.run()

    assert page.ask(f"return {told}.some(w => String(w.value).includes('cone.color=blue'));")
    used = load_concept_set(server.output / "edited" / "reading" / "concepts.safetensors").learned
    (cone,) = [concept for concept in used.concepts if concept.key == "cone"]
    assert cone.readings["color"].value == "blue"


def test_a_wrong_placeholder_is_marked_at_once(page: Page) -> None:
    page.load(json.dumps(saved(DEMO)))
    type_into_prompt(page, "a photo of a {teapot.color} cube")
    page.wait(f"return {PROMPT}.title.includes('teapot');", 60)
    type_into_prompt(page, "a photo of a {cone.color} cube")
    page.wait(f"return {PROMPT}.title === '';", 60)


def test_a_field_that_a_wire_leads_into_is_not_folded_away(page: Page) -> None:
    page.load(json.dumps(saved(EXTRACT)))
    assert page.ask(f"return {TRAINER}.widgets.find(w => w.name === 'overrule').hidden;") is False


def test_inputs_that_most_leave_alone_are_folded_away(page: Page) -> None:
    page.load(json.dumps(saved(DEMO)))
    shown = f"{TRAINER}.widgets.filter(w => !w.hidden).map(w => w.name)"
    assert page.ask(f"return {shown};") == ["axes", "refine_steps", "method", "quality", "more inputs"]
    page.ask(f"{TRAINER}.widgets.at(-1).callback();")
    assert {"steps", "seed", "resume", "overrule"} <= set(page.ask(f"return {shown};"))
