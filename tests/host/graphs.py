"""Graphs for the tests: the example workflows in quick settings, and small ones made here."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from tools.comfy_client import Graph

WORKFLOWS = Path(__file__).parents[2] / "workflows"
SUBGRAPHS = Path(__file__).parents[2] / "subgraphs"
DEMO, EXTRACT, MIX, COMPOSE, MASKS, SDXL = (
    "ICE Demo without downloads", "ICE Textual inversion", "ICE Mix two photos", "ICE Compose saved concepts",
    "ICE Textual inversion, masks", "ICE Textual inversion, SDXL",
)  # fmt: skip
QUICK = {
    "ICEIntrinsicTrainer": {"quality": "steps as set", "steps": 4, "preview_every": 4},
    "KSampler": {"steps": 3},
}
REFINE_STEPS = 2


def workflow_graph(title: str) -> Graph:
    """An example workflow in the API's form."""
    graph: Graph = json.loads((WORKFLOWS / "api" / f"{title}.json").read_text(encoding="utf-8"))
    return graph


def quick(graph: Graph) -> Graph:
    """The same graph with as few steps as show that it works."""
    made = copy.deepcopy(graph)
    for node in made.values():
        node["inputs"] |= QUICK.get(node["class_type"], {})
        if node["inputs"].get("refine_steps"):
            node["inputs"]["refine_steps"] = REFINE_STEPS
    return made


def find(graph: Graph, class_type: str) -> str:
    """The id of the only node of a type."""
    (found,) = [id_ for id_, node in graph.items() if node["class_type"] == class_type]
    return found


def demo_graph() -> Graph:
    """Workflow 1, quick, with a seed that no other test trains it with: a server takes what it has run before
    from its cache, and neither reports progress nor shows previews."""
    graph = quick(workflow_graph(DEMO))
    graph[find(graph, "ICEIntrinsicTrainer")]["inputs"] |= {"seed": 7, "steps": 8}
    return graph


class Draft:
    """A graph in the making: add() returns the node's id, out(id, n) is a wire from its n-th output."""

    def __init__(self) -> None:
        self.graph: Graph = {}

    def add(self, class_type: str, **inputs: Any) -> str:
        id_ = str(len(self.graph) + 1)
        self.graph[id_] = {"class_type": class_type, "inputs": inputs}
        return id_

    @staticmethod
    def out(id_: str, slot: int = 0) -> list[Any]:
        return [id_, slot]

    def demo(self) -> dict[str, list[Any]]:
        """The bundled model's wires: model, clip, vae."""
        id_ = self.add("ICEDemoModel")
        return {name: [id_, n] for n, name in enumerate(("model", "clip", "vae"))}

    def paint(self, wires: dict[str, list[Any]], text: str, seed: int = 1) -> str:
        """Core nodes that paint a prompt and save the picture; returns the saving node's id."""
        positive = self.add("CLIPTextEncode", clip=wires["clip"], text=text)
        negative = self.add("CLIPTextEncode", clip=wires["clip"], text="")
        empty = self.add("EmptyLatentImage", width=128, height=128, batch_size=1)
        latent = self.add(
            "KSampler", model=wires["model"], positive=self.out(positive), negative=self.out(negative),
            latent_image=self.out(empty), seed=seed, steps=3, cfg=5.0, sampler_name="euler",
            scheduler="normal", denoise=1.0,
        )  # fmt: skip
        picture = self.add("VAEDecode", samples=self.out(latent), vae=wires["vae"])
        return self.add("SaveImage", images=self.out(picture), filename_prefix="test")

    def localize(self, wires: dict[str, list[Any]], image: list[Any], **inputs: Any) -> str:
        """The segmentor on a picture, with its defaults where inputs say nothing else."""
        defaults = {
            "mode": "given words, one pass", "labels": "", "max_rounds": 3, "min_area": 0.025,
            "unexplained": 0.1, "seed": 0,
        }  # fmt: skip
        return self.add("ICEAttentionSegmentor", image=image, **wires, **(defaults | inputs))

    def train(self, wires: dict[str, list[Any]], image: list[Any], concepts: list[Any], **inputs: Any) -> str:
        """The trainer, 8 steps and without refinement where inputs say nothing else."""
        defaults = {
            "axes": "color, material", "steps": 8, "learning_rate": 5e-4, "seed": 0, "preview_every": 0,
            "refine_steps": 0, "lora_rank": 4, "resume": True,
        }  # fmt: skip
        return self.add("ICEIntrinsicTrainer", image=image, concepts=concepts, **wires, **(defaults | inputs))
