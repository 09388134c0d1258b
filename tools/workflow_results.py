"""What an example workflow is for, as a square picture: what comes out, and in a corner what went in."""

from __future__ import annotations

import copy

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
    return made


def result_picture(client: Client, graph: Graph, side: int) -> Image.Image:
    """Runs a graph with the bundled model, and shows what it found or learned beside what it drew.

    Raises RuntimeError where the graph does not run to its end.
    """
    run = client.run(with_demo_model(graph))
    if run.status != "success":
        raise RuntimeError(f"the workflow ended with {run.status}: {run.error.get('exception_message')}")
    found = _shown(client, graph, run, "ICEAttentionSegmentor")
    drawn = _shown(client, graph, run, "SaveImage")
    learned = _shown(client, graph, run, "ICEIntrinsicTrainer")
    return _over(found[:1], (drawn or [_top(learned[0])])[:4], side)


def _shown(client: Client, graph: Graph, run: Run, kind: str) -> list[Image.Image]:
    """Pictures that the nodes of a type showed."""
    nodes = [id_ for id_, node in graph.items() if node["class_type"] == kind]
    return [picture for id_ in nodes if id_ in run.executed for picture in client.pictures(run, id_)]


def _top(sheet: Image.Image) -> Image.Image:
    """The first object's row of a contact sheet, below the panels at its head."""
    return sheet.crop((0, sheet.height // 4, sheet.width * 3 // 5, sheet.height // 4 + sheet.width * 2 // 5))


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
