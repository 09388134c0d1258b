// What ComfyUI's page shows of the nodes: wire colors, inputs folded away, inputs that a mode ignores.
// Everything works without this file; pages that draw nodes themselves ("Nodes 2.0") fold inputs on their own.

import { app } from "../../../scripts/app.js";

const COLORS = { ICE_WORDS: "#e0b04c", ICE_CONCEPTS: "#5fb878", ICE_LEARNED: "#b07ce0" };

/** Most that a text field may take of its node, in pixels. */
const TEXT_HEIGHT = 110;

/** Mode of the segmentor -> names of the inputs that it does not look at. */
const IGNORED = {
  ICEAttentionSegmentor: { mode: { "find every object": ["labels"] } },
  ICEConceptRetriever: {
    source: {
      "bundled demo CLIP": ["open_clip_model"],
      "connected CLIP_VISION": ["open_clip_model"],
    },
  },
};

/** The page forgets colors of types that are not its own whenever it loads a palette. */
function colorWires() {
  for (const [type, color] of Object.entries(COLORS)) {
    if (window.LGraphCanvas) window.LGraphCanvas.link_type_colors[type] = color;
    app.canvas.default_connection_color_byType[type] = color;
    document.documentElement.style.setProperty(`--color-datatype-${type}`, color);
  }
}

function limitText(node) {
  for (const widget of node.widgets ?? []) {
    if (widget.type === "customtext") widget.options.getMaxHeight = () => TEXT_HEIGHT;
  }
}

/** Names of the inputs that the node does not look at as it is set. */
function ignoredBy(node) {
  const names = [];
  for (const [chooser, ignored] of Object.entries(IGNORED[node.comfyClass] ?? {})) {
    const widget = node.widgets?.find((one) => one.name === chooser);
    names.push(...(ignored[widget?.value] ?? []));
  }
  return names;
}

/** Names of the fields that a wire leads into: it has to end at something. */
const wired = (node) => (node.inputs ?? []).filter((slot) => slot.link != null).map((slot) => slot.widget?.name);

function showInputs(node) {
  const [ignored, used] = [ignoredBy(node), wired(node)];
  const folds = (widget) => widget.options?.advanced && !node.iceShowsAll && !pageFolds();
  const hides = (widget) => !used.includes(widget.name) && (ignored.includes(widget.name) || folds(widget));
  const hidden = (node.widgets ?? []).filter(hides);
  const all = new Set(hidden.flatMap((widget) => [widget, ...(widget.linkedWidgets ?? [])]));
  for (const widget of node.widgets ?? []) widget.hidden = all.has(widget);
  node.setDirtyCanvas(true, true);
}

const pageFolds = () => Boolean(window.LiteGraph?.vueNodesMode);

function addFold(node) {
  if (!node.widgets?.some((widget) => widget.options?.advanced) || pageFolds()) return;
  const button = node.addWidget("button", "more inputs", null, () => {
    node.iceShowsAll = !node.iceShowsAll;
    button.label = node.iceShowsAll ? "fewer inputs" : "more inputs";
    showInputs(node);
    node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])]);
  });
  button.label = "more inputs";
  button.serialize = false;
  button.options.serialize = false;
}

function watchChoosers(node) {
  for (const chooser of Object.keys(IGNORED[node.comfyClass] ?? {})) {
    const widget = node.widgets?.find((one) => one.name === chooser);
    if (!widget) continue;
    const before = widget.callback;
    widget.callback = function (...given) {
      const answer = before?.apply(this, given);
      showInputs(node);
      return answer;
    };
  }
}

function watchWires(node) {
  const before = node.onConnectionsChange;
  node.onConnectionsChange = function (...given) {
    const answer = before?.apply(this, given);
    showInputs(node);
    return answer;
  };
}

/** Older pages save the line that a run wrote on a node as if it were one of its fields. */
function keepLinesOut(node) {
  const before = node.serialize;
  node.serialize = function (...given) {
    for (const widget of this.widgets ?? []) {
      if (widget.name === "$$node-text-preview") widget.serialize = false;
    }
    return before.apply(this, given);
  };
}

const isOurs = (node) => node.comfyClass?.startsWith("ICE");

app.registerExtension({
  name: "ICE.Appearance",
  setup: colorWires,
  afterConfigureGraph: colorWires,
  nodeCreated(node) {
    if (!isOurs(node)) return;
    limitText(node);
    addFold(node);
    watchChoosers(node);
    watchWires(node);
    keepLinesOut(node);
    showInputs(node);
    colorWires();
  },
  loadedGraphNode(node) {
    if (isOurs(node)) showInputs(node);
  },
});
