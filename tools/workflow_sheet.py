"""Laying out a workflow by code: nodes at places, wires by name, notes and groups around them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from tools.comfy_client import Graph
from tools.comfy_graph import Definitions, has_control, has_upload, inputs_of, is_widget

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
    definition: Any
    inputs: dict[str, Any]
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
        values, fields, sockets, linked_fields = {}, [], [], []
        for name, (type_, options) in known.items():
            given = inputs.get(name)
            wire = given if isinstance(given, Wire) else None
            if is_widget(type_, options):
                value = _default(type_, options) if given is None or wire else given
                values[name] = value
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
                self._connect(wire, drawn_inputs, type_, values)
        for name, type_, wire in linked_fields:
            drawn_inputs.append({"name": name, "type": type_, "widget": {"name": name}, "link": None})
            self._connect(wire, drawn_inputs, type_, values)
        drawn = {
            "id": self.ids, "type": kind, "pos": list(at), "size": list(size), "flags": {},
            "order": len(self.nodes), "mode": 0, "inputs": drawn_inputs,
            "outputs": [
                {"name": name, "type": type_, "links": []}
                for name, type_ in zip(definition["output_name"], definition["output"], strict=True)
            ],
            "properties": {"Node name for S&R": kind}, "widgets_values": fields,
        }  # fmt: skip
        if title:
            drawn["title"] = title
        node = Node(self.ids, definition, values, drawn)
        self.nodes.append(node)
        return node

    def _connect(self, wire: Wire, slots: list[dict[str, Any]], type_: str, values: dict[str, Any]) -> None:
        """Ties the last of the slots to a wire, on both forms of the workflow."""
        if type_ != "*" and wire.type not in type_.split(","):
            raise ValueError(f"a {wire.type} wire into {slots[-1]['name']}, which takes {type_}")
        link = len(self.links) + 1
        self.links.append([link, wire.node, wire.slot, self.ids, len(slots) - 1, wire.type])
        slots[-1]["link"] = link
        values[slots[-1]["name"]] = [str(wire.node), wire.slot]
        source = next(node for node in self.nodes if node.id == wire.node)
        source.drawn["outputs"][wire.slot]["links"].append(link)

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

    def workflow(self) -> dict[str, Any]:
        """The page's form, version 0.4."""
        drawn = [*self.notes, *(node.drawn for node in self.nodes)]
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"comfyui-ice/{self.title}")),
            "revision": 0, "last_node_id": self.ids, "last_link_id": len(self.links),
            "nodes": drawn, "links": self.links, "groups": self.groups, "config": {}, "extra": {},
            "version": 0.4,
        }  # fmt: skip

    def prompt(self) -> Graph:
        """The API's form."""
        return {
            str(node.id): {"class_type": node.drawn["type"], "inputs": node.inputs} for node in self.nodes
        }


def _default(kind: str, options: dict[str, Any]) -> Any:
    empty = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}
    if kind == "COMBO":
        return options.get("default", next(iter(options["options"]), ""))
    return options.get("default", empty[kind])
