"""ComfyUI's page in Chromium: load a workflow, look at its nodes, run it, photograph it."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException
from selenium.webdriver.common.by import By

from tools.comfy_client import Client

SIZE = (1440, 900)
LEFT, TOP, BOTTOM = 70, 105, 60
"""Pixels that the page's bars take from the graph."""
_ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--hide-scrollbars", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip
_SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Sidebar.Size": "small",
}
"""A page without the first visit's welcome and without what covers the graph; all else as a user has it."""
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_APP = "const app = window.comfyAPI?.app?.app ?? window.app;"


def missing() -> str | None:
    """What is not installed of the browser, None when all is there."""
    if _browser() is None:
        return f"there is none of {', '.join(_BROWSERS)}; install Debian's package chromium"
    if shutil.which("chromedriver") is None:
        return "there is no chromedriver; install Debian's package chromium-driver"
    return None


def _browser() -> str | None:
    """The program that shows the page."""
    return next((found for name in _BROWSERS if (found := shutil.which(name))), None)


@dataclass(frozen=True)
class Page:
    """The page of a server, ready for use."""

    driver: webdriver.Chrome
    url: str

    def ask(self, script: str, *arguments: Any) -> Any:
        """What a piece of JavaScript returns; `app` is ComfyUI's."""
        return self.driver.execute_script(f"{_APP} {script}", *arguments)

    def wait(self, script: str, seconds: float = 120) -> Any:
        """Waits until a piece of JavaScript returns something true; TimeoutError when it does not."""
        deadline = time.monotonic() + seconds
        while not (value := self.ask(script)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"still not true after {seconds:.0f} s: {script}")
            time.sleep(0.3)
        return value

    def load(self, workflow: str) -> None:
        """Opens a workflow's text as a dropped file would be."""
        nodes = len(json.loads(workflow)["nodes"])
        self.driver.execute_async_script(
            f"{_APP} const done = arguments[1];"
            "app.loadGraphData(JSON.parse(arguments[0]), true, true).then(() => done(), done);",
            workflow,
        )
        self.wait(f"return app.graph?._nodes?.length === {nodes};")
        self.fit()

    def open_template(self, title: str, pack: str = "comfyui-ice") -> None:
        """Opens a workflow of a pack as a person does: template browser, the pack's shelf, the card."""
        self.ask("app.extensionManager.command.execute('Comfy.BrowseTemplates');")
        self.ask("for (const node of app.graph._nodes) node.before = true;")
        for text in (pack, title):
            self._click(text)
        self.wait("return app.graph?._nodes?.length > 0 && !app.graph._nodes.some(node => node.before);")
        # Older pages offer models that are not there in a dialog, newer ones on the side.
        self.wait(
            """
            const open = document.querySelector('[role=dialog]');
            if (open?.textContent.includes('Missing Models'))
                open.querySelector('.p-dialog-close-button')?.click();
            return !open;
            """
        )
        time.sleep(1)

    def _click(self, text: str, seconds: float = 120) -> None:
        """Clicks the first visible element of a dialog with just this text; TimeoutError when none comes."""
        leaf = f"//*[@role='dialog']//*[not(*) and normalize-space(.)='{text}']"
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            # A list that is still filling may take an element away between finding and clicking it.
            with suppress(StaleElementReferenceException, ElementClickInterceptedException):
                for element in self.driver.find_elements(By.XPATH, leaf):
                    self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'});", element)
                    if element.is_displayed():
                        element.click()
                        return
            time.sleep(0.3)
        raise TimeoutError(f"the page shows no {text!r} after {seconds:.0f} s")

    def zoom(self) -> float:
        """How large the graph is drawn; the page shows no text below 0.57."""
        return float(self.ask("return app.canvas.ds.scale;"))

    def wait_for_pictures(self, seconds: float = 20) -> None:
        """Until every picture in view is there, so that a photograph shows it."""
        self.wait("return app.graph._nodes.every(n => (n.imgs ?? []).every(i => i.complete));", seconds)
        time.sleep(1)

    def fit(self) -> None:
        """Brings the whole graph into view."""
        self.ask(
            """
            const [x0, y0, bottom] = arguments, right = 20;
            const b = [Infinity, Infinity, -Infinity, -Infinity];
            for (const g of [...app.graph._groups, ...app.graph._nodes]) {
                const [x, y, w, h] = g.boundingRect ?? g._bounding ?? [...g.pos, ...g.size];
                b[0] = Math.min(b[0], x); b[1] = Math.min(b[1], y);
                b[2] = Math.max(b[2], x + w); b[3] = Math.max(b[3], y + h);
            }
            const c = app.canvas.canvas, scaled = c.getBoundingClientRect();
            const left = Math.max(x0 - scaled.left, 10), top = Math.max(y0 - scaled.top, 10);
            const scale = Math.min((scaled.width - left - right) / (b[2] - b[0]),
                                   (scaled.height - top - bottom) / (b[3] - b[1]));
            app.canvas.ds.scale = scale;
            app.canvas.ds.offset[0] = left / scale - b[0];
            app.canvas.ds.offset[1] = top / scale - b[1];
            app.canvas.setDirty(true, true);
            """,
            LEFT, TOP, BOTTOM,
        )  # fmt: skip
        time.sleep(1)

    def nodes(self) -> list[dict[str, Any]]:
        """Every node as the page has it: id, type, whether the type is missing, and its fields."""
        found: list[dict[str, Any]] = self.ask(
            """
            return app.graph._nodes.map(n => ({
                id: n.id, type: n.type, missing: !n.constructor?.nodeData && !n.isVirtualNode,
                widgets: (n.widgets ?? []).map(w => [w.name, w.value]),
                slots: (n.inputs ?? []).map(i => i.name)}));
            """
        )
        return found

    def links(self) -> list[list[Any]]:
        """Every wire as [from node, its slot, to node, the input's name]."""
        found: list[list[Any]] = self.ask(
            """
            const all = app.graph.links instanceof Map ? [...app.graph.links.values()]
                                                       : Object.values(app.graph.links);
            return all.filter(l => l).map(l => [Number(l.origin_id), l.origin_slot, Number(l.target_id),
                app.graph.getNodeById(l.target_id).inputs[l.target_slot].name]);
            """
        )
        return found

    def run(self, seconds: float = 900) -> float:
        """Presses Run and waits for the end; returns how long it took."""
        started = time.monotonic()
        self.driver.execute_async_script(f"{_APP} app.queuePrompt(0, 1).then(arguments[0], arguments[0]);")
        busy = (
            "const q = new XMLHttpRequest(); q.open('GET', '/prompt', false); q.send();"
            "return JSON.parse(q.responseText).exec_info.queue_remaining === 0;"
        )
        self.wait(busy, seconds)
        taken = time.monotonic() - started
        time.sleep(3)
        return taken

    def dialogs(self) -> list[str]:
        """The texts of dialogs and toasts that are open."""
        found = self.driver.find_elements(By.CSS_SELECTOR, ".p-dialog, .p-toast-message, [role=dialog]")
        return [element.text for element in found if element.is_displayed()]

    def complaints(self) -> list[str]:
        """Errors on the page's console since this was asked last, but for files that are not there and
        addresses that it may not ask."""
        known = (
            "Failed to load resource", "Content Security Policy", "Fetch API cannot load",
            "Error fetching file size",
        )  # fmt: skip
        messages = [e["message"] for e in self.driver.get_log("browser") if e["level"] == "SEVERE"]
        return [message for message in messages if not any(one in message for one in known)]

    def picture(self) -> Image.Image:
        """What the window shows."""
        return Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")

    def screenshot(self, path: Path) -> None:
        """The whole window."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.picture().save(path, quality=85, optimize=True)

    def node_picture(self, node: int, path: Path, width: int = 440) -> None:
        """One node at its own size with what it shows, as a JPEG of at most `width` pixels' width."""
        box: list[float] = self.ask(
            """
            const node = app.graph.getNodeById(arguments[0]), c = app.canvas.canvas;
            const [x, y] = node.pos, [w, h] = node.size, edge = 12, title = 30;
            const [, x0, y0, bottom] = arguments, scaled = c.getBoundingClientRect();
            const left = x0 - scaled.left + edge, top = y0 - scaled.top + edge;
            const scale = Math.min(1, (scaled.height - top - bottom) / (h + title));
            app.canvas.deselectAll?.();
            node.title = node.constructor.title ?? node.title;
            app.canvas.ds.scale = scale;
            app.canvas.ds.offset[0] = left / scale - x;
            app.canvas.ds.offset[1] = top / scale - (y - title);
            app.canvas.setDirty(true, true);
            return [x0, y0, x0 + w * scale + 2 * edge, y0 + (h + title) * scale + 2 * edge];
            """,
            node, LEFT, TOP, BOTTOM,
        )  # fmt: skip
        time.sleep(1)
        picture = self.picture().crop(tuple(round(side) for side in box))
        picture.thumbnail((width, 10 * width))
        picture.save(path, quality=88, optimize=True)

    def resize(self, width: int, height: int) -> None:
        """Gives the window another size in pixels."""
        view = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", view)
        time.sleep(1)


@contextmanager
def opened(url: str) -> Iterator[Page]:
    """The page of the server in a window of its own with a fresh profile."""
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = _browser() or _BROWSERS[0]
        for argument in (*_ARGUMENTS, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        try:
            driver.set_script_timeout(120)
            page = Page(driver, url)
            page.resize(*SIZE)
            Client(url).post("/settings", _SETTINGS)
            driver.get(url)
            page.wait("return !!(app?.graph && app.extensionManager?.workflow?.activeWorkflow);", 180)
            time.sleep(2)
            yield page
        finally:
            driver.quit()
