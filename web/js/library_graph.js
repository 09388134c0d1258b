// Concepts of the library into the graph: in the middle of what is seen, or where they are dropped.

import { app } from "../../../scripts/app.js";

const NODE = "ICELibraryConcept";
const KIND = "application/x-ice-concept";

const middle = () => {
  const box = app.canvas.canvas.getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
};

/** A point of the window as the graph has it. */
function placeOf([x, y]) {
  const box = app.canvas.canvas.getBoundingClientRect();
  const { scale, offset } = app.canvas.ds;
  return [(x - box.left) / scale - offset[0], (y - box.top) / scale - offset[1]];
}

/** Adds a node that takes this concept out of the library. point: of the window, its middle by default. */
export function insert(concept, point) {
  const graph = app.canvas.graph ?? app.graph;
  const node = window.LiteGraph.createNode(NODE);
  if (!node) return null;
  const [x, y] = placeOf(point ?? middle());
  node.pos = point ? [x, y] : free([x - node.size[0] / 2, y - node.size[1] / 2], graph);
  graph.beforeChange?.();
  graph.add(node);
  const field = node.widgets?.find((widget) => widget.name === "concept");
  if (field) {
    field.value = concept.name;
    field.callback?.(concept.name);
  }
  graph.afterChange?.();
  app.canvas.selectNode?.(node);
  node.setDirtyCanvas(true, true);
  remember();
  return node;
}

/** Lets the page take the change back: by itself it looks for changes when a mouse button goes up. */
function remember() {
  const tracker = app.extensionManager.workflow?.activeWorkflow?.changeTracker;
  (tracker?.captureCanvasState ?? tracker?.checkState)?.call(tracker);
}

/** The place, or one a little lower and to the right where a node already begins there. */
function free([x, y], graph) {
  const taken = ([a, b]) => graph._nodes.some((node) => Math.hypot(node.pos[0] - a, node.pos[1] - b) < 20);
  let place = [x, y];
  while (taken(place)) place = [place[0] + 40, place[1] + 40];
  return place;
}

/** Makes an element draggable into the graph. */
export function makeDraggable(element, concept) {
  element.draggable = true;
  element.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData(KIND, JSON.stringify({ id: concept.id, name: concept.name }));
    event.dataTransfer.effectAllowed = "copy";
  });
}

const isOurs = (event) => Boolean(event.dataTransfer?.types?.includes(KIND));

function overGraph(event) {
  if (event.target?.closest?.(".ice-library")) return false;
  const box = app.canvas.canvas.getBoundingClientRect();
  const { clientX: x, clientY: y } = event;
  return x >= box.left && x < box.right && y >= box.top && y < box.bottom;
}

/** Takes what is dropped on the graph, before the page looks for files in it. */
export function receiveDrops() {
  const over = (event) => {
    if (!isOurs(event) || !overGraph(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  };
  const drop = (event) => {
    if (!isOurs(event)) return;
    event.preventDefault();
    event.stopPropagation();
    if (overGraph(event)) insert(JSON.parse(event.dataTransfer.getData(KIND)), [event.clientX, event.clientY]);
  };
  window.addEventListener("dragover", over, true);
  window.addEventListener("drop", drop, true);
}
