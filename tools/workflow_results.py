"""What an example workflow is for, as a square picture: what comes out, and in a corner what went in."""

from __future__ import annotations

import copy
import re

from PIL import Image

from tools.comfy_client import Client, Graph, Run

_PAPER, _GAP = (255, 255, 255), 8
_KINDS = ("cone", "cube")
"""What stands in the picture that takes a photograph's place."""


def with_demo_model(graph: Graph) -> Graph:
    """The same graph with the bundled model in the place of a checkpoint, and words of its world.

    Where two photographs are asked for it gets two names of things that are in one picture.
    """
    made = copy.deepcopy(graph)
    labels = iter(_KINDS)
    prompt = {"cup": _KINDS[0], "chair": _KINDS[1]}
    for node in made.values():
        inputs, kind = node["inputs"], node["class_type"]
        if kind == "CheckpointLoaderSimple":
            node |= {"class_type": "ICEDemoModel", "inputs": {}}
        elif kind == "ICEConceptRetriever":
            inputs["source"] = "bundled demo CLIP"
        elif kind == "ICEAttentionSegmentor" and inputs["mode"] != "find every object":
            inputs["labels"] = next(labels)
        elif kind == "EmptyLatentImage":
            inputs |= {"width": 128, "height": 128}
        elif kind == "ICEConceptComposer":
            for word, stand_in in prompt.items():
                inputs["prompt"] = inputs["prompt"].replace(f".{word}.", f".{stand_in}.")
                # A thing that was not learned ends the prompt.
                inputs["prompt"] = re.sub(rf" {word}$", f" {stand_in}", inputs["prompt"])
    return made


def result_picture(client: Client, graph: Graph, side: int) -> Image.Image:
    """What a graph draws with the bundled model, and small what that was made of; where it draws nothing
    what it found.

    Raises RuntimeError where the graph does not run to its end.
    """
    made = with_demo_model(graph)
    draws = any(node["class_type"] == "SaveImage" for node in made.values())
    run = client.run(made if draws else finding(made))
    if run.status != "success":
        raise RuntimeError(f"the workflow ended with {run.status}: {run.error.get('exception_message')}")
    found = _shown(client, made, run, "ICEAttentionSegmentor")
    if not draws:
        return _over([], found[:1], side)
    return _over(found[:1], [_last(picture) for picture in _shown(client, made, run, "SaveImage")], side)


def finding(graph: Graph) -> Graph:
    """As much of a graph as finds the objects, with a look at them."""
    (start,) = [id_ for id_, node in graph.items() if node["class_type"] == "ICEAttentionSegmentor"]
    needed, waiting = set[str](), [start]
    while waiting:
        needed.add(id_ := waiting.pop())
        links = (value for value in graph[id_]["inputs"].values() if isinstance(value, list))
        waiting += [source for source, _ in links if source not in needed]
    look = {"class_type": "PreviewImage", "inputs": {"images": [start, 3]}}
    return {id_: graph[id_] for id_ in graph if id_ in needed} | {"look": look}


def _shown(client: Client, graph: Graph, run: Run, kind: str) -> list[Image.Image]:
    """Pictures that the nodes of a type showed."""
    nodes = [id_ for id_, node in graph.items() if node["class_type"] == kind]
    return [picture for id_ in nodes if id_ in run.executed for picture in client.pictures(run, id_)]


def _last(picture: Image.Image) -> Image.Image:
    """The right of two pictures side by side; any other as it is."""
    width, height = picture.size
    return picture if width < 2 * height else picture.crop((width - height, 0, width, height))


def _over(before: list[Image.Image], after: list[Image.Image], side: int) -> Image.Image:
    """One picture, or four in a square; in its corner, small, what it was made of."""
    canvas = Image.new("RGB", (side, side), _PAPER)
    across = 1 if len(after) < 4 else 2
    part = (side - (across - 1) * _GAP) // across
    for n, picture in enumerate(after[: across**2]):
        canvas.paste(_fitted(picture, part), (n % across * (part + _GAP), n // across * (part + _GAP)))
    for picture in before:
        inset = side * 3 // 8
        edge = side - inset - _GAP
        canvas.paste(_PAPER, (0, edge, inset + _GAP, side))
        canvas.paste(_fitted(picture, inset), (0, edge + _GAP))
    return canvas


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    """The middle of a picture as a square."""
    edge = min(picture.size)
    left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
    square = picture.crop((left, top, left + edge, top + edge))
    return square.resize((side, side), Image.Resampling.LANCZOS)
