// Keeps the composer short: it shows the inputs for learned concepts that are connected, and one more. All of them
// are the node's own, so that without this module, and for the server, nothing is different.

import { app } from "../../../scripts/app.js";

const COMPOSER = "ICEConceptComposer";
const ALIASES = [..."abcdefgh"];

/** How many inputs are shown: up to the last that is connected, and the next. */
export function shown(connected) {
  return Math.min(connected.lastIndexOf(true) + 2, connected.length);
}

function slot(node, name) {
  return node.inputs.findIndex((input) => input.name === name);
}

function settle(node) {
  const connected = ALIASES.map((name) => node.inputs[slot(node, name)]?.link != null);
  const count = shown(connected);
  ALIASES.forEach((name, n) => {
    const at = slot(node, name);
    if (n < count && at < 0) node.addInput(name, "ICE_LEARNED", { shape: 7 });
    if (n >= count && at >= 0) node.removeInput(at);
  });
  app.graph?.setDirtyCanvas(true, true);
}

app.registerExtension({
  name: "ICE.Growing",
  nodeCreated(node) {
    if (node.comfyClass !== COMPOSER) return;
    // Links change one after the other, and while a workflow is loaded slots and links do not fit yet.
    let waiting;
    const later = () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => node.graph && settle(node), 0);
    };
    const before = node.onConnectionsChange;
    node.onConnectionsChange = function (...given) {
      later();
      return before?.apply(this, given);
    };
    later();
  },
  loadedGraphNode(node) {
    if (node.comfyClass === COMPOSER) settle(node);
  },
});
