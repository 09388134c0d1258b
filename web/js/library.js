// The concept library on the side of ComfyUI's page. Where the page has no sidebar of its own, nothing is shown.

import { app } from "../../../scripts/app.js";
import { receiveDrops } from "./library_graph.js";
import { Panel } from "./library_panel.js";
import { loadTexts, text } from "./library_texts.js";

const ID = "ice-library";

let panel = null;

app.registerExtension({
  name: "ICE.Library",
  async setup() {
    const manager = app.extensionManager;
    if (typeof manager?.registerSidebarTab !== "function") return;
    await loadTexts(manager.setting?.get?.("Comfy.Locale"));
    receiveDrops();
    manager.registerSidebarTab({
      id: ID,
      icon: "pi pi-palette",
      title: text("title"),
      label: text("tab"),
      tooltip: text("tooltip"),
      type: "custom",
      render(container) {
        panel?.remove();
        panel = new Panel(container);
      },
      destroy() {
        panel?.remove();
        panel = null;
      },
    });
  },
});
