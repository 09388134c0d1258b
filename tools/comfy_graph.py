"""A workflow as ComfyUI's page saves it: read against the server's node definitions, turned into a prompt.

`object_info` is the server's answer to GET /object_info: node type -> definition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.comfy_client import Graph

NOTES = frozenset({"Note", "MarkdownNote"})
"""Nodes that only the page knows."""
INPUT_NODE, OUTPUT_NODE = -10, -20
"""What the page calls the two ends of a subgraph."""
_WIDGET_TYPES = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
_CONTROLS = ("fixed", "increment", "decrement", "randomize")

Definitions = Mapping[str, Mapping[str, Any]]


def inputs_of(definition: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Input name -> (type, options), in the page's order; lists of choices become COMBO with `options`."""
    found = {}
    for part in ("required", "optional"):
        for name, spec in definition["input"].get(part, {}).items():
            kind, options = spec[0], dict(spec[1]) if len(spec) > 1 else {}
            if isinstance(kind, list):
                kind, options = "COMBO", {**options, "options": kind}
            found[name] = (kind, options)
    return found


def is_ours(definition: Mapping[str, Any]) -> bool:
    """Whether a node comes from a pack and not from the host."""
    return str(definition["python_module"]).startswith("custom_nodes.")


def is_widget(kind: str, options: Mapping[str, Any]) -> bool:
    """Whether the page draws a field for an input, and not only a socket."""
    return kind in _WIDGET_TYPES and not options.get("forceInput")


def has_control(name: str, kind: str, options: Mapping[str, Any]) -> bool:
    """Whether the page puts "control after generate" after an input's field; the server never sees it."""
    return kind == "INT" and bool(options.get("control_after_generate", name in ("seed", "noise_seed")))


def has_upload(definition: Mapping[str, Any]) -> bool:
    """Whether the page puts an upload button, which holds the value "image", after all fields."""
    return any(options.get("image_upload") for _, options in inputs_of(definition).values())


def widget_values(node: Mapping[str, Any], definition: Mapping[str, Any]) -> dict[str, Any]:
    """Input name -> the value in its field.

    ValueError where the saved values are too few, or too many for a node of this pack: a core node of a
    newer host may have more fields than that of an older one, whose page ignores the rest.
    """
    left = list(node.get("widgets_values") or [])
    values = {}
    for name, (kind, options) in inputs_of(definition).items():
        if not is_widget(kind, options):
            continue
        if not left:
            raise ValueError(f"{node['type']} {node['id']}: no value for {name}")
        values[name] = left.pop(0)
        if has_control(name, kind, options) and (not left or left.pop(0) not in _CONTROLS):
            raise ValueError(f"{node['type']} {node['id']}: {name} has no control after generate")
    if has_upload(definition) and (not left or left.pop(0) != "image"):
        raise ValueError(f"{node['type']} {node['id']}: no upload button")
    if left and is_ours(definition):
        raise ValueError(f"{node['type']} {node['id']}: values without a field: {left}")
    return values


@dataclass(frozen=True)
class Level:
    """The nodes and links [id, from, slot, to, slot, type] of a workflow, or of one subgraph in it.

    inputs, outputs: what a subgraph takes and gives, as the page writes it; prefix: of its nodes' ids in a
    prompt.
    """

    nodes: Sequence[Mapping[str, Any]]
    links: Sequence[Sequence[Any]]
    inputs: Sequence[Mapping[str, Any]] = ()
    outputs: Sequence[Mapping[str, Any]] = ()
    prefix: str = ""


def subgraphs_of(workflow: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The subgraphs that a workflow defines, by the node type that stands for each."""
    return {one["id"]: one for one in workflow.get("definitions", {}).get("subgraphs", [])}


def level_of(subgraph: Mapping[str, Any], prefix: str = "") -> Level:
    """A subgraph's own level."""
    ends = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [[link[end] for end in ends] for link in subgraph["links"]]
    return Level(subgraph["nodes"], links, subgraph["inputs"], subgraph["outputs"], prefix)


def api_form(workflow: Mapping[str, Any], object_info: Definitions) -> Graph:
    """The prompt that the page sends for a workflow: field values, replaced by links where there are some,
    and the nodes of subgraphs in their place, with ids such as "7:2"."""
    graph: Graph = {}
    root = Level(workflow["nodes"], workflow["links"])
    _put(graph, root, {}, subgraphs_of(workflow), object_info)
    return graph


def _put(
    graph: Graph,
    level: Level,
    given: Mapping[int, list[Any] | None],
    subgraphs: Mapping[str, Mapping[str, Any]],
    object_info: Definitions,
) -> dict[int, list[Any]]:
    """Adds a level's nodes to a prompt. given: what comes in by slot; returns what goes out by slot."""
    links = {link[0]: link for link in level.links}
    inner: dict[int, dict[int, list[Any]]] = {}

    def source(link_id: int) -> list[Any] | None:
        _, origin, slot, *_ = links[link_id]
        if origin == INPUT_NODE:
            return given.get(slot)
        return inner[origin][slot] if origin in inner else [f"{level.prefix}{origin}", slot]

    # A subgraph's own nodes come after those that feed it, for their links lead through its slots.
    for node in sorted(level.nodes, key=lambda one: int(one["order"])):
        if node["type"] in NOTES:
            continue
        if node.get("mode", 0) != 0:
            raise ValueError(f"{node['type']} {node['id']} is muted or bypassed, which is not handled here")
        slots = {n: slot for n, slot in enumerate(node["inputs"]) if slot.get("link") is not None}
        if node["type"] in subgraphs:
            below = level_of(subgraphs[node["type"]], f"{level.prefix}{node['id']}:")
            wires = {n: source(slot["link"]) for n, slot in slots.items()}
            inner[node["id"]] = _put(graph, below, wires, subgraphs, object_info)
            continue
        inputs = widget_values(node, object_info[node["type"]])
        for slot in slots.values():
            if (wire := source(slot["link"])) is not None:
                inputs[slot["name"]] = wire
        graph[f"{level.prefix}{node['id']}"] = {"class_type": node["type"], "inputs": inputs}
    outgoing = {link[4]: source(link[0]) for link in level.links if link[3] == OUTPUT_NODE}
    return {slot: wire for slot, wire in outgoing.items() if wire is not None}


def disagreements(workflow: Mapping[str, Any], object_info: Definitions) -> Iterator[str]:
    """Where a workflow does not fit the server's nodes, a line each: types, fields, values, links."""
    subgraphs = subgraphs_of(workflow)
    root = Level(workflow["nodes"], workflow["links"])
    for level in (root, *map(level_of, subgraphs.values())):
        yield from _level_disagreements(level, subgraphs, object_info)


def _level_disagreements(
    level: Level, subgraphs: Mapping[str, Mapping[str, Any]], object_info: Definitions
) -> Iterator[str]:
    known: dict[int, Mapping[str, Any]] = {
        INPUT_NODE: {"outputs": [{**slot, "links": slot["linkIds"]} for slot in level.inputs], "inputs": []},
        OUTPUT_NODE: {"inputs": [{**slot, "link": slot["linkIds"][0]} for slot in level.outputs]},
    }
    for node in level.nodes:
        if node["type"] in NOTES:
            continue
        if node["type"] in subgraphs:
            known[node["id"]] = node
        elif node["type"] in object_info:
            known[node["id"]] = node
            yield from _node_disagreements(node, object_info[node["type"]])
        else:
            yield f"{node['type']} {node['id']}: no such node type"
    links = {link[0]: link for link in level.links}
    for link_id, origin, origin_slot, target, target_slot, kind in links.values():
        if origin not in known or target not in known:
            yield f"link {link_id}: an end is on no node"
            continue
        output = known[origin]["outputs"][origin_slot]
        slot = known[target]["inputs"][target_slot]
        if link_id not in (output["links"] or ()) or slot["link"] != link_id or output["type"] != kind:
            yield f"link {link_id}: its two ends disagree"
        definition = object_info.get(known[target].get("type", ""))
        accepted = inputs_of(definition).get(slot["name"], ("nothing", {}))[0] if definition else slot["type"]
        if accepted != "*" and kind not in accepted.split(","):
            yield f"link {link_id}: {kind} into {slot['name']}, which takes {accepted}"
    for id_, node in known.items():
        for slot in node["inputs"]:
            if slot["link"] is not None and slot["link"] not in links:
                yield f"{node.get('type')} {id_}: {slot['name']} hangs on a link that is not there"


def _node_disagreements(node: Mapping[str, Any], definition: Mapping[str, Any]) -> Iterator[str]:
    where = f"{node['type']} {node['id']}"
    yield from _output_disagreements(where, node["outputs"], definition)
    inputs = inputs_of(definition)
    linked = set()
    for slot in node["inputs"]:
        if slot["name"] not in inputs:
            yield f"{where}: no input {slot['name']}"
        if slot["link"] is not None:
            linked.add(slot["name"])
    for name in definition["input"].get("required", {}):
        if not is_widget(*inputs[name]) and name not in linked:
            yield f"{where}: {name} is not connected"
    try:
        values = widget_values(node, definition)
    except ValueError as error:
        yield str(error)
        return
    for name, value in values.items():
        if (problem := _value_problem(value, *inputs[name])) is not None:
            yield f"{where}: {name} {problem}"


def _output_disagreements(
    where: str, outputs: list[dict[str, Any]], definition: Mapping[str, Any]
) -> Iterator[str]:
    """Outputs of our own nodes must be the same; of a core node, which versions name and add to, the types
    of those that are used."""
    names, types = [slot["name"] for slot in outputs], [slot["type"] for slot in outputs]
    if is_ours(definition):
        if names != definition["output_name"] or types != definition["output"]:
            yield f"{where}: the outputs are {definition['output_name']}, the file has {names}"
        return
    used = max((n + 1 for n, slot in enumerate(outputs) if slot["links"]), default=0)
    if types[:used] != definition["output"][:used]:
        yield f"{where}: the outputs are of types {definition['output']}, the file has {types}"


def _value_problem(value: Any, kind: str, options: Mapping[str, Any]) -> str | None:
    kinds: dict[str, Any] = {
        "INT": int,
        "FLOAT": (int, float),
        "STRING": str,
        "BOOLEAN": bool,
        "COMBO": object,
    }
    if not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind in ("INT", "FLOAT")):
        return f"is {value!r}, no {kind}"
    if kind in ("INT", "FLOAT"):
        low, high = options.get("min", value), options.get("max", value)
        return None if low <= value <= high else f"is {value}, outside {low} to {high}"
    if kind == "COMBO" and value not in options["options"] and not lists_files(options["options"]):
        return f"is {value!r}, none of {options['options']}"
    return None


def lists_files(choices: list[Any]) -> bool:
    """Whether choices are what lies on a disk, so that another machine has others."""
    return not choices or any("/" in str(choice) or "." in str(choice) for choice in choices)
