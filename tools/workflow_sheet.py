"""Laying out a workflow by code: nodes at places, wires by name, notes and groups around them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.comfy_client import Graph
from tools.comfy_graph import (
    INPUT_NODE,
    OUTPUT_NODE,
    Definitions,
    api_form,
    has_control,
    has_upload,
    inputs_of,
    is_widget,
)

Place = tuple[int, int]


@dataclass(frozen=True)
class Wire:
    """An output of a node on the sheet."""

    node: int
    slot: int
    type: str


@dataclass
class Node:
    """A node on the sheet: node["model"] is the wire out of its output of that name."""

    id: int
    definition: Mapping[str, Any]
    drawn: dict[str, Any]

    def __getitem__(self, output: str) -> Wire:
        names = [name.lower() for name in self.definition["output_name"]]
        slot = names.index(output.lower())
        return Wire(self.id, slot, self.definition["output"][slot])


@dataclass
class Sheet:
    """A workflow in the making, checked against the server's definitions as it grows."""

    title: str
    object_info: Definitions
    nodes: list[Node] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    links: list[list[Any]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    subgraphs: dict[str, dict[str, Any]] = field(default_factory=dict)
    taken: list[Wire] = field(default_factory=list)
    given: list[tuple[str, Wire]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    ids: int = 0

    def add(self, kind: str, at: Place, size: Place, title: str | None = None, **inputs: Any) -> Node:
        """A node of a type; inputs are wires or field values, fields left out get their defaults.

        KeyError for an input the node does not have.
        """
        definition = self.object_info[kind]
        known = inputs_of(definition)
        if strange := set(inputs) - set(known):
            raise KeyError(f"{kind} has no input {', '.join(strange)}; it has {', '.join(known)}")
        self.ids += 1
        fields: list[Any] = []
        sockets, linked_fields = [], []
        for name, (type_, options) in known.items():
            given = inputs.get(name)
            wire = given if isinstance(given, Wire) else None
            if is_widget(type_, options):
                value = _default(type_, options) if given is None or wire else given
                fields += [value, "fixed"] if has_control(name, type_, options) else [value]
                if wire:
                    linked_fields.append((name, type_, wire))
            else:
                sockets.append((name, type_, wire, name in definition["input"].get("optional", {})))
        if has_upload(definition):
            fields.append("image")
        drawn_inputs: list[dict[str, Any]] = []
        for name, type_, wire, optional in sockets:
            shape = {"shape": 7} if optional else {}
            drawn_inputs.append({"name": name, "type": type_, "link": None} | shape)
            if wire:
                self._connect(wire, drawn_inputs, type_)
        for name, type_, wire in linked_fields:
            drawn_inputs.append({"name": name, "type": type_, "widget": {"name": name}, "link": None})
            self._connect(wire, drawn_inputs, type_)
        drawn = {
            "id": self.ids, "type": kind, "pos": list(at), "size": list(size), "flags": {},
            "order": len(self.nodes), "mode": 0, "inputs": drawn_inputs,
            "outputs": _outputs(definition),
            "properties": {"Node name for S&R": kind}, "widgets_values": fields,
        }  # fmt: skip
        return self._keep(definition, drawn, title)

    def needs(self, node: Node, name: str, url: str, directory: str) -> None:
        """A file that a node loads, and where the page can fetch it from."""
        node.drawn["properties"].setdefault("models", []).append(
            {"name": name, "url": url, "directory": directory}
        )

    def take(self, name: str, type_: str) -> Wire:
        """What this sheet, as a subgraph, takes: a wire from its left end."""
        self.names.append(name)
        self.taken.append(Wire(INPUT_NODE, len(self.taken), type_))
        return self.taken[-1]

    def give(self, name: str, wire: Wire) -> None:
        """What this sheet, as a subgraph, gives at its right end."""
        self.given.append((name, wire))

    def place(
        self,
        inner: Sheet,
        at: Place,
        size: Place,
        title: str | None = None,
        fields: Sequence[tuple[Node, str]] = (),
        **inputs: Wire,
    ) -> Node:
        """Another sheet as one node of this one. fields: of its nodes, those that are drawn on it."""
        self.ids += 1
        subgraph = inner.subgraph()
        self.subgraphs |= {**inner.subgraphs, subgraph["id"]: subgraph}
        definition = {
            "output_name": [name for name, _ in inner.given],
            "output": [wire.type for _, wire in inner.given],
        }
        drawn_inputs: list[dict[str, Any]] = []
        for name, wire in zip(inner.names, inner.taken, strict=True):
            drawn_inputs.append({"name": name, "type": wire.type, "link": None})
            if name in inputs:
                self._connect(inputs[name], drawn_inputs, wire.type)
        drawn = {
            "id": self.ids, "type": subgraph["id"], "pos": list(at), "size": list(size), "flags": {},
            "order": len(self.nodes), "mode": 0, "inputs": drawn_inputs, "outputs": _outputs(definition),
            "properties": {"proxyWidgets": [[str(node.id), name] for node, name in fields]},
            "widgets_values": [],
        }  # fmt: skip
        return self._keep(definition, drawn, title or inner.title)

    def put(self, blueprint: Mapping[str, Any], at: Place, **inputs: Wire) -> Node:
        """A subgraph as it is shipped (see `workflow_blueprints.blueprint`), as one node of this sheet.

        KeyError for an input that it does not have.
        """
        (saved,) = blueprint["nodes"]
        self.ids += 1
        self.subgraphs |= {one["id"]: one for one in blueprint["definitions"]["subgraphs"]}
        slots = [dict(slot) for slot in saved["inputs"]]
        if strange := set(inputs) - {slot["name"] for slot in slots}:
            raise KeyError(f"{blueprint['id']} has no input {', '.join(strange)}")
        for n, slot in enumerate(slots):
            if slot["name"] in inputs:
                self._connect(inputs[slot["name"]], slots[: n + 1], slot["type"])
        outputs = [{**slot, "links": []} for slot in saved["outputs"]]
        place = {"id": self.ids, "pos": list(at), "order": len(self.nodes)}
        definition = {
            "output_name": [slot["name"] for slot in outputs],
            "output": [slot["type"] for slot in outputs],
        }
        return self._keep(definition, {**saved, **place, "inputs": slots, "outputs": outputs}, None)

    def _keep(self, definition: Mapping[str, Any], drawn: dict[str, Any], title: str | None) -> Node:
        node = Node(self.ids, definition, drawn | ({"title": title} if title else {}))
        self.nodes.append(node)
        return node

    def _connect(self, wire: Wire, slots: list[dict[str, Any]], type_: str) -> None:
        """Ties the last of the slots to a wire."""
        if type_ != "*" and wire.type not in type_.split(","):
            raise ValueError(f"a {wire.type} wire into {slots[-1]['name']}, which takes {type_}")
        link = self._link(wire, self.ids, len(slots) - 1)
        slots[-1]["link"] = link

    def _link(self, wire: Wire, target: int, slot: int) -> int:
        link = len(self.links) + 1
        self.links.append([link, wire.node, wire.slot, target, slot, wire.type])
        if wire.node != INPUT_NODE:
            source = next(node for node in self.nodes if node.id == wire.node)
            source.drawn["outputs"][wire.slot]["links"].append(link)
        return link

    def note(self, text: str, at: Place, size: Place, title: str) -> None:
        """Markdown for the reader of the graph."""
        self.ids += 1
        self.notes.append(
            {
                "id": self.ids, "type": "MarkdownNote", "pos": list(at), "size": list(size), "flags": {},
                "order": len(self.notes), "mode": 0, "inputs": [], "outputs": [], "title": title,
                "properties": {}, "widgets_values": [text], "color": "#432", "bgcolor": "#653",
            }
        )  # fmt: skip

    def group(self, title: str, at: Place, size: Place, color: str = "#3f789e") -> None:
        """A titled frame behind nodes."""
        bounds = [*at, *size]
        group = {"id": len(self.groups) + 1, "title": title, "bounding": bounds, "color": color}
        self.groups.append(group | {"font_size": 24, "flags": {}})

    def subgraph(self) -> dict[str, Any]:
        """This sheet as the definition of a subgraph."""
        if not any(link[3] == OUTPUT_NODE for link in self.links):
            for slot, (_, wire) in enumerate(self.given):
                self._link(wire, OUTPUT_NODE, slot)
        right = max(node.drawn["pos"][0] + node.drawn["size"][0] for node in self.nodes)
        ends = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        return {
            "id": self._uuid(), "version": 1, "revision": 0, "config": {}, "name": self.title,
            "state": {
                "lastGroupId": 0, "lastNodeId": self.ids, "lastLinkId": len(self.links), "lastRerouteId": 0,
            },
            "inputNode": {"id": INPUT_NODE, "bounding": [-200, 0, 120, 40 + 20 * len(self.taken)]},
            "outputNode": {"id": OUTPUT_NODE, "bounding": [right + 80, 0, 120, 40 + 20 * len(self.given)]},
            "inputs": [
                {
                    "id": self._uuid(f"takes {name}"), "name": name, "type": wire.type,
                    "linkIds": [link[0] for link in self.links if link[1:3] == [INPUT_NODE, wire.slot]],
                    "pos": [-100, 20 + 20 * slot],
                }
                for slot, (name, wire) in enumerate(zip(self.names, self.taken, strict=True))
            ],
            "outputs": [
                {
                    "id": self._uuid(f"gives {name}"), "name": name, "type": wire.type,
                    "linkIds": [link[0] for link in self.links if link[3:5] == [OUTPUT_NODE, slot]],
                    "pos": [right + 100, 20 + 20 * slot],
                }
                for slot, (name, wire) in enumerate(self.given)
            ],
            "widgets": [], "nodes": [node.drawn for node in self.nodes], "groups": [],
            "links": [dict(zip(ends, link, strict=True)) for link in self.links], "extra": {},
        }  # fmt: skip

    def _uuid(self, of: str = "") -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"comfyui-ice/{self.title}/{of}".rstrip("/")))

    def workflow(self) -> dict[str, Any]:
        """The page's form, version 0.4."""
        drawn = [*self.notes, *(node.drawn for node in self.nodes)]
        made = {
            "id": self._uuid(),
            "revision": 0, "last_node_id": self.ids, "last_link_id": len(self.links),
            "nodes": drawn, "links": self.links, "groups": self.groups, "config": {}, "extra": {},
            "version": 0.4,
        }  # fmt: skip
        return made | ({"definitions": {"subgraphs": [*self.subgraphs.values()]}} if self.subgraphs else {})

    def prompt(self) -> Graph:
        """The API's form."""
        return api_form(self.workflow(), self.object_info)


def _outputs(definition: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "type": type_, "links": []}
        for name, type_ in zip(definition["output_name"], definition["output"], strict=True)
    ]


def _default(kind: str, options: dict[str, Any]) -> Any:
    empty = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}
    if kind == "COMBO":
        return options.get("default", next(iter(options["options"]), ""))
    return options.get("default", empty[kind])
