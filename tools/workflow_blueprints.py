"""Subgraphs: several nodes as one, on the sheets of the example workflows and in everybody's node search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ice_core.model.sampling import SamplingConfig
from tools.comfy_graph import Definitions
from tools.workflow_sheet import Node, Sheet, Wire


@dataclass(frozen=True)
class Drawing:
    """How a kind of model is drawn with. side: of the picture in pixels; the rest are KSampler's fields."""

    side: int
    steps: int = 20
    cfg: float = 7.0
    sampler_name: str = "dpmpp_2m"
    scheduler: str = "karras"


SMALL = Drawing(128, SamplingConfig.steps, SamplingConfig.guidance, "dpmpp_2m_sde")
LARGE, XL = Drawing(512), Drawing(1024, steps=30, cfg=6.0)
"""The demo model, as this pack itself draws, Stable Diffusion 1.5, and XL: more steps and less guidance."""
MATERIAL_PROMPT = "a photo of a {a.vase.material} {b.chair.object}"

DRAWING, EXTRACTING = 100, 200
"""Where the ids of a subgraph's nodes begin: the page wants them different from all others of a workflow."""

Drawn = tuple[Sheet, list[tuple[Node, str]]]
"""A sheet, and which fields of its nodes are shown on the node that stands for it."""


def draw(object_info: Definitions, how: Drawing, batch: int) -> Drawn:
    """Conditioning -> pictures, with the core's own nodes."""
    sheet = Sheet("Draw", object_info, ids=DRAWING)
    wires = {name: sheet.take(name, name.upper()) for name in ("model", "clip", "vae")}
    positive = sheet.take("positive", "CONDITIONING")
    sampler = _sample(sheet, wires, positive, how, batch)
    return sheet, sampler


def _sample(
    sheet: Sheet, wires: Mapping[str, Wire], positive: Wire, how: Drawing, batch: int
) -> list[tuple[Node, str]]:
    """Draws and gives `image`; returns the fields that people turn."""
    nothing = sheet.add("CLIPTextEncode", (0, 0), (320, 110), "Nothing to avoid", clip=wires["clip"], text="")
    size = {"width": how.side, "height": how.side}
    empty = sheet.add("EmptyLatentImage", (0, 170), (320, 110), **size, batch_size=batch)
    latent = sheet.add(
        "KSampler", (360, 0), (320, 280), model=wires["model"], positive=positive,
        negative=nothing["conditioning"], latent_image=empty["latent"], seed=0, steps=how.steps,
        cfg=how.cfg, sampler_name=how.sampler_name, scheduler=how.scheduler,
    )  # fmt: skip
    decoded = sheet.add("VAEDecode", (720, 0), (220, 60), samples=latent["latent"], vae=wires["vae"])
    sheet.give("image", decoded["image"])
    return [(latent, "seed"), (empty, "width"), (empty, "height"), (empty, "batch_size")]


def extract_given(
    object_info: Definitions,
    label: str = "vase",
    title: str = "Extract concepts of a picture",
    ids: int = EXTRACTING,
) -> Drawn:
    """A picture and the names of its objects -> their tokens, and the sheet that shows them."""
    sheet = Sheet(title, object_info, ids=ids)
    wires: dict[str, Any] = {name: sheet.take(name, name.upper()) for name in ("model", "clip", "vae")}
    wires["image"] = sheet.take("image", "IMAGE")
    found = sheet.add(
        "ICEAttentionSegmentor", (0, 0), (360, 600), mode="given words, one pass", labels=label, **wires
    )
    learned = sheet.add(
        "ICEIntrinsicTrainer", (400, 0), (400, 900), concepts=found["concepts"], preview_every=20, **wires
    )
    for name, wire in (("learned", learned["learned"]), ("picture", learned["picture"])):
        sheet.give(name, wire)
    sheet.give("overlay", found["overlay"])
    return sheet, [(found, "labels"), (learned, "axes"), (learned, "quality")]


def material(object_info: Definitions) -> Drawn:
    """Learned concepts of two pictures -> pictures of the one's object in the other's material."""
    sheet = Sheet("Material of A on object B", object_info, ids=DRAWING)
    wires = {name: sheet.take(name, name.upper()) for name in ("model", "clip", "vae")}
    learned = {name: sheet.take(name, "ICE_LEARNED") for name in ("a", "b")}
    composed = sheet.add(
        "ICEConceptComposer", (0, 340), (320, 300), clip=wires["clip"], prompt=MATERIAL_PROMPT, **learned
    )
    fields = _sample(sheet, wires, composed["conditioning"], LARGE, 1)
    return sheet, [(composed, "prompt"), *fields]


BLUEPRINTS: Mapping[str, Callable[[Definitions], Drawn]] = {
    "ICE Extract concepts of a picture": extract_given,
    "ICE Material of A on object B": material,
}
"""File name below `subgraphs/`, which is what the node search shows -> what makes it."""


def blueprint(object_info: Definitions, name: str) -> dict[str, Any]:
    """A subgraph in the form in which the host offers it: a workflow of the one node that stands for it."""
    inner, fields = BLUEPRINTS[name](object_info)
    sheet = Sheet(name, object_info)
    sheet.place(inner, (0, 0), (340, 300), name, fields)
    made = sheet.workflow()
    made["definitions"]["subgraphs"][0] |= {"name": name, "category": "ICE"}
    return made
