"""The panel of the concept library, in a browser on a real server."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from concept_sets import concept_set

from ice_core.library.entries import Query
from ice_core.library.store import Library
from tools.comfy_host import Server

if TYPE_CHECKING:
    from selenium.webdriver.remote.webelement import WebElement

    from tools.comfy_page import Page

XL = "stable-diffusion-xl-v1-base"
SETS = 35
HOSTILE = '<img src=x onerror="window.iceWasRun = true">'
EMPTY = json.dumps({"nodes": [], "links": [], "last_node_id": 0, "last_link_id": 0, "version": 0.4})
SHOWN = "[...document.querySelectorAll('.ice-library-cell')]"
STATUS = "document.querySelector('.ice-library-status').textContent"


@pytest.fixture
def library(server: Server) -> Iterator[Library]:
    """A new one in the place of that of other tests: 70 concepts, then a hostile vase of SDXL."""
    shutil.rmtree(server.folder / "ice-library", ignore_errors=True)
    with Library(server.folder / "ice-library") as made:
        for n in range(SETS):
            made.add(concept_set(title=f"picture {n}"), "a test", ["garden"])
        vase = concept_set(("vase",), ("coral",), ("glass",), "the last", XL)
        (one,) = vase.learned.concepts
        learned = replace(vase.learned, concepts=(replace(one, label=HOSTILE),))
        made.add(replace(vase, learned=learned), "a test")
        yield made


@pytest.fixture
def panel(page: Page, library: Library) -> Iterator[Page]:
    """The page with an empty graph and the panel open, as it is when one first opens it."""
    page.driver.execute_async_script(
        "const app = window.comfyAPI?.app?.app ?? window.app;"
        "app.loadGraphData(JSON.parse(arguments[0]), true, true).then(arguments[1], arguments[1]);",
        EMPTY,
    )
    page.complaints()
    click(page, ".ice-library-tab-button")
    page.wait(f"return {SHOWN}.length > 0;", 30)
    yield page
    for chooser in ("base", "axis"):
        choose(page, chooser, "")
    type_into_search(page, "")
    page.ask("document.querySelector('.ice-library-clear')?.click();")
    click(page, ".ice-library-tab-button")
    page.wait("return !document.querySelector('.ice-library');", 10)
    assert page.complaints() == []


def element(page: Page, css: str) -> WebElement:
    page.wait(f"return !!document.querySelector({css!r});", 30)
    return page.driver.find_element("css selector", css)


def click(page: Page, css: str) -> None:
    """A new answer may replace what was found before it is clicked."""
    from selenium.common.exceptions import StaleElementReferenceException

    for _ in range(5):
        with suppress(StaleElementReferenceException):
            element(page, css).click()
            return
        time.sleep(0.3)
    raise TimeoutError(f"{css} is replaced again and again")


def choose(page: Page, chooser: str, value: str) -> None:
    page.ask(
        "const one = document.querySelector('.ice-library-' + arguments[0]); one.value = arguments[1];"
        "one.dispatchEvent(new Event('change'));",
        chooser, value,
    )  # fmt: skip


def type_into_search(page: Page, text: str) -> None:
    page.ask(
        "const one = document.querySelector('.ice-library-search'); one.value = arguments[0];"
        "one.dispatchEvent(new Event('input', {bubbles: true}));",
        text,
    )


def wait_for(page: Page, number: int) -> None:
    """Until the panel says that it found so many."""
    page.wait(f"return {STATUS} === 'Found: {number}';", 30)


def names(page: Page) -> set[str]:
    shown: list[str] = page.ask(f"return {SHOWN}.map(cell => cell.title.split('\\n')[0]);")
    return set(shown)


def node(page: Page) -> dict[str, Any]:
    """The only node of the graph."""
    (found,) = page.nodes()
    return found | {"at": page.ask("const [x, y] = app.graph._nodes[0].pos; return [x, y];")}


def test_the_first_page_of_thumbnails_comes_and_then_the_others(panel: Page) -> None:
    wait_for(panel, 71)
    assert panel.ask(f"return {SHOWN}.length;") == 60
    assert panel.ask(f"return {SHOWN}[0].querySelector('.ice-library-caption').textContent;") == "vase"
    panel.wait(f"return {SHOWN}.slice(0, 9).every(c => c.querySelector('img')?.complete);", 30)
    assert panel.ask(f"return {SHOWN}[1].querySelector('img').naturalWidth;") == 128
    panel.ask("document.querySelector('.ice-library-list').scrollTop = 1e6;")
    panel.wait(f"return {SHOWN}.length === 71;", 30)
    ids = panel.ask(f"return {SHOWN}.map(cell => Number(cell.dataset.concept));")
    assert ids == list(range(71, 0, -1))


def test_search_narrows_while_one_types(panel: Page) -> None:
    element(panel, ".ice-library-search").send_keys("gla")
    wait_for(panel, 1)
    assert names(panel) == {"vase #71"}
    type_into_search(panel, "?!")
    panel.wait(f"return {STATUS}.includes('holds no word');", 30)
    type_into_search(panel, "unicorn")
    panel.wait(f"return {STATUS}.startsWith('Nothing fits');", 30)
    type_into_search(panel, "")
    wait_for(panel, 71)


def test_filters_by_base_model_and_by_property(panel: Page) -> None:
    panel.wait("return document.querySelector('.ice-library-base').options.length === 3;", 30)
    choose(panel, "base", XL)
    wait_for(panel, 1)
    choose(panel, "base", "")
    wait_for(panel, 71)
    assert panel.ask("return document.querySelector('.ice-library-value').disabled;")
    choose(panel, "axis", "material")
    offered = panel.ask(
        "return [...document.querySelector('.ice-library-value').options].map(one => one.textContent);"
    )
    assert offered == ["Any value", "metal (35)", "wood (35)", "glass (1)"]
    choose(panel, "value", "wood")
    wait_for(panel, 35)
    type_into_search(panel, "red")
    panel.wait(f"return {STATUS}.startsWith('Nothing fits');", 30)


def test_what_was_asked_is_there_when_the_panel_is_opened_again(panel: Page) -> None:
    choose(panel, "base", XL)
    type_into_search(panel, "glass")
    wait_for(panel, 1)
    for _ in range(2):
        click(panel, ".ice-library-tab-button")
        time.sleep(0.5)
    wait_for(panel, 1)
    assert panel.ask("return document.querySelector('.ice-library-search').value;") == "glass"


def test_all_of_a_concept_is_shown(panel: Page) -> None:
    type_into_search(panel, "picture ball")
    wait_for(panel, SETS)
    click(panel, ".ice-library-cell")
    assert element(panel, ".ice-library-detail h3").text == "ball #69"
    assert "metal 90 %" in element(panel, ".ice-library-readings").text
    prompts = panel.ask(
        "return [...document.querySelectorAll('.ice-library-prompts code')].map(c => c.textContent);"
    )
    assert prompts == ["a photo of a {ball}", "{ball.object}", "{ball.color}", "{ball.material}"]
    assert "picture 34" in element(panel, ".ice-library-facts").text
    panel.wait("return document.querySelector('.ice-library-sheet img')?.naturalWidth > 0;", 30)
    origin = panel.driver.current_url.rstrip("/").partition("?")[0]
    grant = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": origin}
    panel.driver.execute_cdp_cmd("Browser.grantPermissions", grant)
    click(panel, ".ice-library-copy")
    panel.wait("return document.querySelector('.ice-library-copy').textContent === 'Copied';", 10)
    copied = panel.driver.execute_async_script(
        "navigator.clipboard.readText().then(arguments[0], arguments[0]);"
    )
    assert copied == "a photo of a {ball}"
    click(panel, ".ice-library-back")
    assert panel.ask("return !document.querySelector('.ice-library-detail');")


def test_the_same_property_is_looked_for(panel: Page) -> None:
    type_into_search(panel, "")
    click(panel, "[data-concept='71']")
    click(panel, ".ice-library-same")
    # Coral is near to red.
    wait_for(panel, SETS)
    assert "vase #71" in element(panel, ".ice-library-chip").text
    click(panel, ".ice-library-clear")
    wait_for(panel, 71)


def test_texts_of_others_are_shown_and_not_run(panel: Page) -> None:
    click(panel, "[data-concept='71']")
    assert element(panel, ".ice-library-detail h3").text == "vase #71"
    assert panel.ask("return window.iceWasRun;") is None
    click(panel, ".ice-library-back")


@pytest.mark.parametrize("way", ["in the list", "in the detail"])
def test_a_click_puts_a_concept_into_the_graph_and_undo_takes_it_out(panel: Page, way: str) -> None:
    if way == "in the list":
        panel.ask("document.querySelector('[data-concept=\"70\"] .ice-library-add').click();")
    else:
        click(panel, "[data-concept='70']")
        click(panel, ".ice-library-insert")
        click(panel, ".ice-library-back")
    made = node(panel)
    assert (made["type"], made["widgets"][0]) == ("ICELibraryConcept", ["concept", "cube #70"])
    panel.driver.execute_async_script(
        "const app = window.comfyAPI?.app?.app ?? window.app;"
        "app.extensionManager.workflow.activeWorkflow.changeTracker.undo().then(arguments[0], arguments[0]);"
    )
    assert panel.nodes() == []


def test_a_concept_is_dragged_into_the_graph(panel: Page) -> None:
    from selenium.webdriver import ActionChains

    x, y = 900, 500
    cell = element(panel, "[data-concept='70']")
    mouse = ActionChains(panel.driver)
    mouse.move_to_element(cell).click_and_hold().move_by_offset(30, 10).perform()
    canvas = panel.ask("const b = app.canvas.canvas.getBoundingClientRect(); return [b.left, b.top];")
    place = ActionChains(panel.driver)
    place.w3c_actions.pointer_action.move_to_location(x, y)
    place.w3c_actions.pointer_action.move_to_location(x + 1, y)
    place.w3c_actions.pointer_action.release()
    place.perform()
    panel.wait("return app.graph._nodes.length === 1;", 10)
    made = node(panel)
    scale, (left, top) = panel.ask("return [app.canvas.ds.scale, app.canvas.ds.offset];")
    assert made["widgets"][0] == ["concept", "cube #70"]
    wanted = [(x + 1 - canvas[0]) / scale - left, (y - canvas[1]) / scale - top]
    assert made["at"] == pytest.approx(wanted, abs=2)


def test_a_concept_is_removed_when_one_says_so_twice(panel: Page, library: Library) -> None:
    click(panel, "[data-concept='70']")
    click(panel, ".ice-library-remove")
    click(panel, ".ice-library-keep")
    assert library.count() == 71
    click(panel, ".ice-library-remove")
    click(panel, ".ice-library-really")
    wait_for(panel, 70)
    assert panel.ask("return !document.querySelector('[data-concept=\"70\"]');")
    assert library.count() == 70
    assert [hit.entry.id for hit in library.search(Query(limit=2))] == [71, 69]


def test_what_is_added_meanwhile_is_shown_after_a_run(panel: Page, library: Library) -> None:
    library.add(concept_set(("cone",), title="new"))
    panel.ask("(window.comfyAPI.api.api).dispatchEvent(new CustomEvent('execution_success', {detail: {}}));")
    wait_for(panel, 72)
    assert panel.ask(f"return {SHOWN}[0].dataset.concept;") == "72"


def test_without_a_library_there_is_said_where_it_would_be(page: Page, server: Server) -> None:
    shutil.rmtree(server.folder / "ice-library", ignore_errors=True)
    click(page, ".ice-library-tab-button")
    page.wait(f"return {STATUS}.includes('is empty');", 30)
    assert str(server.folder / "ice-library") in page.ask(f"return {STATUS};")
    click(page, ".ice-library-tab-button")
    assert not (server.folder / "ice-library").exists()


def test_a_page_without_a_sidebar_goes_without_the_panel(page: Page) -> None:
    done = page.driver.execute_async_script(
        """
        const app = window.comfyAPI?.app?.app ?? window.app;
        const done = arguments[0], manager = app.extensionManager;
        const ours = app.extensions.find(one => one.name === 'ICE.Library');
        app.extensionManager = {};
        ours.setup(app).then(() => done('quiet'), error => done(String(error)))
            .finally(() => { app.extensionManager = manager; });
        """
    )
    assert done == "quiet"


def test_the_panel_speaks_the_language_of_the_page(page: Page) -> None:
    said = page.driver.execute_async_script(
        """
        import('/extensions/comfyui-ice/js/library_texts.js').then(async texts => {
            await texts.loadTexts('de');
            const said = [texts.text('remove'), texts.text('found', {number: 3})];
            await texts.loadTexts('en');
            arguments[0]([...said, texts.text('remove')]);
        }).catch(error => arguments[0]([String(error)]));
        """
    )
    assert said == ["Entfernen", "Gefunden: 3", "Remove"]
