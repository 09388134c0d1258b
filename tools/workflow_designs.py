"""The example workflows: what is on each sheet, and what its notes say.

A sheet is at most `WIDTH` x `HEIGHT`: the page opens templates at three quarters of what would fit, and hides
all text below 57 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tools.comfy_graph import Definitions
from tools.workflow_blueprints import EXTRACTING, LARGE, SMALL, XL, Drawing, draw, extract_given
from tools.workflow_sheet import Node, Place, Sheet

DEMO_SEED = 1
DEMO_PROMPT = "a photo of a {cone.color} {cone.material} {cube.object}"
COMPOSE_PROMPT = "a photo of a {a.cone.material} {b.cube.object}"
PHOTOS_PROMPT = "a photo of a {a.cup.material} {b.chair.object}"
XL_PROMPT = "a photo of a {a.cup.material} chair"
CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
CHECKPOINT_URL = (
    "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
    "v1-5-pruned-emaonly-fp16.safetensors"
)
XL_CHECKPOINT = "sd_xl_base_1.0.safetensors"
XL_CHECKPOINT_URL = (
    "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors"
)
SAVED = "embeddings/ice/demo"
"""Where the demo saves, as ICE Load Concepts lists it."""
PHOTO = "example.png"
"""The picture that comes with the host."""
WIDTH, HEIGHT = 1720, 1065

_BLUE, _GREEN, _GOLD, _PURPLE = "#3f789e", "#88aa88", "#b58b2a", "#a1309b"
_FRAME, _HEAD = 12, 62
"""Pixels of a group around its nodes, and above them for both titles."""


def demo(object_info: Definitions) -> Sheet:
    sheet = Sheet("ICE Demo without downloads", object_info)
    sheet.note(
        "**Press Run.** The picture is rendered, the small model comes with the pack.\n\n"
        "Each object gets a token of its own, and one per property. *Compose* mixes them: "
        "`{object.property}`, properties before the thing.",
        (0, 0), (260, 200), "Start here",
    )  # fmt: skip
    model = sheet.add("ICEDemoModel", (0, 320), (260, 70))
    scene = sheet.add("ICEDemoScene", (0, 450), (260, 400), seed=DEMO_SEED, objects=2)
    words = sheet.add("ICEConceptRetriever", (290, 0), (300, 360), image=scene["image"])
    found = _segmentor(sheet, model, scene, (290, 410), (300, 500), words=words["words"])
    learned = _trainer(
        sheet, model, scene, found, (620, 0), (400, 960), preview_every=20, refine_steps=40,
        words=words["words"],
    )  # fmt: skip
    sheet.add(
        "ICESaveConcepts", (1050, 0), (300, 280), learned=learned["learned"], folder="ice/demo",
        lora=learned["lora"],
    )  # fmt: skip
    composed = sheet.add(
        "ICEConceptComposer", (1050, 400), (300, 340), clip=model["clip"], prompt=DEMO_PROMPT,
        a=learned["learned"],
    )  # fmt: skip
    refined = sheet.add(
        "LoraModelLoader", (1050, 790), (300, 110), model=model["model"], lora=learned["lora"]
    )
    image = _draw(sheet, (1380, 0), (340, 200), refined["model"], model, composed, SMALL)
    sheet.add("SaveImage", (1380, 260), (340, 400), images=image, filename_prefix="ice/demo")
    _group(sheet, "1 · A model and a picture", (0, 320), (260, 530), _BLUE)
    _group(sheet, "2 · Find the objects", (290, 0), (300, 910), _GREEN)
    _group(sheet, "3 · Learn them", (620, 0), (400, 960), _GOLD)
    _group(sheet, "4 · Keep them", (1050, 0), (300, 280), _BLUE)
    _group(sheet, "5 · Compose", (1050, 400), (300, 500), _PURPLE)
    _group(sheet, "6 · Draw", (1380, 0), (340, 660), _PURPLE)
    return sheet


def extract(object_info: Definitions) -> Sheet:
    sheet = Sheet("ICE Textual inversion", object_info)
    sheet.note(
        "Choose a **Stable Diffusion 1.x** checkpoint and a **photo**, press **Run**.\n\n"
        "The first run fetches an open_clip model (1.7 GB) that names the objects. Without it: delete the "
        "retriever, set the segmentor's *mode* to *given words, one pass*, and name the objects there.\n\n"
        "**Cancel** keeps what was learned.",
        (0, 0), (280, 280), "Start here",
    )  # fmt: skip
    model = _checkpoint(sheet, (0, 400), 280)
    photo = sheet.add("LoadImage", (0, 570), (280, 370), "Your photo", image=PHOTO)
    words = sheet.add(
        "ICEConceptRetriever", (310, 0), (300, 380), image=photo["image"], source="open_clip model"
    )
    found = _segmentor(sheet, model, photo, (310, 430), (300, 510), words=words["words"])
    read = _reader(sheet, model, found, words, (640, 0), (340, 560))
    learned = _trainer(
        sheet, model, photo, found, (1010, 0), (400, 940), preview_every=20, overrule=read["overrule"],
        words=words["words"],
    )  # fmt: skip
    _save(sheet, learned, (1440, 0), (280, 400), "ice/photo")
    _group(sheet, "1 · Your model and your photo", (0, 400), (280, 540), _BLUE)
    _group(sheet, "2 · Find the objects", (310, 0), (300, 940), _GREEN)
    _group(sheet, "3 · See what they are like", (640, 0), (340, 560), _GREEN)
    _group(sheet, "4 · Learn them", (1010, 0), (400, 940), _GOLD)
    _group(sheet, "5 · Keep them", (1440, 0), (280, 400), _PURPLE)
    return sheet


def reading(object_info: Definitions) -> Sheet:
    """Not shipped: for the picture of the reader's help page."""
    sheet = Sheet("Reading", object_info)
    model = sheet.add("ICEDemoModel", (0, 0), (260, 70))
    scene = sheet.add("ICEDemoScene", (0, 120), (260, 400), seed=DEMO_SEED, objects=2)
    words = sheet.add("ICEConceptRetriever", (290, 0), (300, 360), image=scene["image"])
    found = _segmentor(sheet, model, scene, (290, 410), (300, 500), words=words["words"])
    read = _reader(sheet, model, found, words, (640, 0), (480, 600))
    sheet.add("PreviewImage", (1150, 0), (300, 300), images=read["readings"])
    return sheet


def two_photos(object_info: Definitions) -> Sheet:
    sheet = Sheet("ICE Mix two photos", object_info)
    sheet.note(
        "1. Choose a **Stable Diffusion 1.x** checkpoint and two **photos**.\n"
        "2. Write what the object is into *labels* of **A** and of **B**, and the same words into the "
        "prompt.\n"
        "3. Press **Run**: left the photo B, right its object in the material of A.",
        (0, 0), (320, 220), "Start here",
    )  # fmt: skip
    model = _checkpoint(sheet, (0, 340), 320)
    giver = sheet.add("LoadImage", (350, 0), (300, 380), "A: gives the material", image=PHOTO)
    thing = sheet.add("LoadImage", (350, 500), (300, 380), "B: gives the object", image=PHOTO)
    learned = []
    for n, (name, label, photo, y) in enumerate((("A", "cup", giver, 0), ("B", "chair", thing, 500))):
        inner, fields = extract_given(object_info, label, f"Extract {name}", EXTRACTING + 100 * n)
        learned.append(
            sheet.place(inner, (680, y), (320, 220), f"{name}: take it apart", fields, **_wires(model, photo))
        )
    composed = sheet.add(
        "ICEConceptComposer", (1030, 0), (320, 340), clip=model["clip"], prompt=PHOTOS_PROMPT,
        a=learned[0]["learned"], b=learned[1]["learned"],
    )  # fmt: skip
    image = _draw(sheet, (1030, 400), (320, 200), model["model"], model, composed, LARGE, batch=1)
    both = sheet.add(
        "ImageStitch", (1030, 660), (320, 180), "Side by side", image1=thing["image"], image2=image
    )
    sheet.add("SaveImage", (1380, 0), (340, 300), "Before and after", images=both["image"])
    sheet.add("PreviewImage", (1380, 360), (340, 520), "All of A", images=learned[0]["picture"])
    _group(sheet, "1 · Your model", (0, 340), (320, 110), _BLUE)
    _group(sheet, "2 · Two photos", (350, 0), (300, 880), _BLUE)
    _group(sheet, "3 · Learn them", (680, 0), (320, 880), _GOLD)
    _group(sheet, "4 · Put them together", (1030, 0), (320, 840), _PURPLE)
    _group(sheet, "5 · See", (1380, 0), (340, 880), _GREEN)
    return sheet


def compose(object_info: Definitions) -> Sheet:
    sheet = Sheet("ICE Compose saved concepts", object_info)
    sheet.note(
        "**The material of A on the object of B.** Choose two folders of saved concepts, write the prompt, "
        "press **Run**. As it is, this works on what *ICE Demo without downloads* saves.\n\n"
        "For concepts of a checkpoint, put **Load Checkpoint** in the place of the demo's model and draw "
        "512 x 512 pixels.",
        (0, 0), (320, 240), "Start here",
    )  # fmt: skip
    model = sheet.add("ICEDemoModel", (0, 360), (320, 70))
    first = sheet.add("ICELoadConcepts", (350, 0), (320, 320), "A: gives the material", folder=SAVED)
    second = sheet.add("ICELoadConcepts", (350, 380), (320, 320), "B: gives the object", folder=SAVED)
    composed = sheet.add(
        "ICEConceptComposer", (700, 0), (360, 380), clip=model["clip"], prompt=COMPOSE_PROMPT,
        a=first["learned"], b=second["learned"],
    )  # fmt: skip
    image = _draw(sheet, (700, 500), (360, 200), model["model"], model, composed, SMALL)
    sheet.add("SaveImage", (1090, 0), (460, 520), images=image, filename_prefix="ice/composed")
    _group(sheet, "1 · The model", (0, 360), (320, 70), _BLUE)
    _group(sheet, "2 · What was learned before", (350, 0), (320, 700), _GREEN)
    _group(sheet, "3 · Compose", (700, 0), (360, 380), _GOLD)
    _group(sheet, "4 · Draw", (700, 500), (360, 200), _PURPLE)
    _group(sheet, "5 · See", (1090, 0), (460, 520), _PURPLE)
    return sheet


def own_masks(object_info: Definitions) -> Sheet:
    sheet = Sheet("ICE Textual inversion, masks", object_info)
    sheet.note(
        "1. Choose a **Stable Diffusion 1.x** checkpoint and a photo.\n"
        "2. Right-click the photo, *Open in MaskEditor*, paint over the object.\n"
        "3. Write what it is into *labels*, press **Run**.\n\n"
        "Masks of any other node do as well (SAM 3, ...): a batch, and one word per mask.",
        (0, 0), (320, 240), "Start here",
    )  # fmt: skip
    model = _checkpoint(sheet, (0, 360), 320)
    photo = sheet.add("LoadImage", (0, 520), (320, 400), "Your photo, with a painted mask", image=PHOTO)
    found = _segmentor(
        sheet, model, photo, (350, 0), (360, 600), mode="given masks", labels="vase", masks=photo["mask"]
    )
    learned = _trainer(sheet, model, photo, found, (740, 0), (440, 920), preview_every=20)
    _save(sheet, learned, (1210, 0), (400, 400), "ice/masked")
    _group(sheet, "1 · Your model and your photo", (0, 360), (320, 560), _BLUE)
    _group(sheet, "2 · The mask with its word", (350, 0), (360, 600), _GREEN)
    _group(sheet, "3 · Learn it", (740, 0), (440, 920), _GOLD)
    _group(sheet, "4 · Keep it", (1210, 0), (400, 400), _PURPLE)
    return sheet


def sdxl(object_info: Definitions) -> Sheet:
    sheet = Sheet("ICE Textual inversion, SDXL", object_info)
    sheet.note(
        "1. Choose a **Stable Diffusion XL** checkpoint (Illustrious, Pony, ... too) and a photo.\n"
        "2. Write what the object is into *labels*, and the same word into the prompt.\n"
        "3. Press **Run**.\n\n"
        "Learning at 1024 x 1024 fits 16 GB, by computation: the trainer saves memory by itself. "
        "Turbo and Lightning: learn the same way, then draw in their few steps at *cfg* 1 to 2.",
        (0, 0), (320, 300), "Start here",
    )  # fmt: skip
    model = _checkpoint(
        sheet, (0, 420), 320, XL_CHECKPOINT, XL_CHECKPOINT_URL, "Your Stable Diffusion XL model"
    )
    photo = sheet.add("LoadImage", (0, 580), (320, 360), "Your photo", image=PHOTO)
    found = _segmentor(sheet, model, photo, (350, 0), (340, 600), mode="given words, one pass", labels="cup")
    learned = _trainer(sheet, model, photo, found, (720, 0), (380, 940), preview_every=20)
    _save(sheet, learned, (1130, 0), (280, 320), "ice/sdxl")
    composed = sheet.add(
        "ICEConceptComposer", (1130, 440), (280, 360), clip=model["clip"], prompt=XL_PROMPT,
        a=learned["learned"],
    )  # fmt: skip
    image = _draw(sheet, (1440, 0), (280, 200), model["model"], model, composed, XL, batch=1)
    sheet.add("SaveImage", (1440, 260), (280, 320), images=image, filename_prefix="ice/sdxl")
    _group(sheet, "1 · Your model and your photo", (0, 420), (320, 520), _BLUE)
    _group(sheet, "2 · Find the object", (350, 0), (340, 600), _GREEN)
    _group(sheet, "3 · Learn it", (720, 0), (380, 940), _GOLD)
    _group(sheet, "4 · Keep it", (1130, 0), (280, 320), _BLUE)
    _group(sheet, "5 · Compose", (1130, 440), (280, 360), _PURPLE)
    _group(sheet, "6 · Draw", (1440, 0), (280, 580), _PURPLE)
    return sheet


def _group(sheet: Sheet, title: str, at: Place, size: Place, color: str) -> None:
    """A frame around what lies in a rectangle."""
    (x, y), (width, height) = at, size
    place = (x - _FRAME, y - _HEAD)
    sheet.group(title, place, (width + 2 * _FRAME, height + _HEAD + _FRAME), color)


def _checkpoint(
    sheet: Sheet,
    at: Place,
    width: int,
    name: str = CHECKPOINT,
    url: str = CHECKPOINT_URL,
    title: str = "Your Stable Diffusion 1.x model",
) -> Node:
    loader = sheet.add("CheckpointLoaderSimple", at, (width, 110), title, ckpt_name=name)
    sheet.needs(loader, name, url, "checkpoints")
    return loader


def _models(model: Node) -> dict[str, Any]:
    """What both stages look with."""
    return {name: model[name] for name in ("model", "clip", "vae")}


def _wires(model: Node, picture: Node) -> dict[str, Any]:
    """What both stages look with, and at."""
    return _models(model) | {"image": picture["image"]}


def _segmentor(sheet: Sheet, model: Node, picture: Node, at: Place, size: Place, **inputs: Any) -> Node:
    return sheet.add("ICEAttentionSegmentor", at, size, **_wires(model, picture), **inputs)


def _reader(sheet: Sheet, model: Node, found: Node, words: Node, at: Place, size: Place) -> Node:
    wires = _models(model) | {"concepts": found["concepts"], "words": words["words"]}
    return sheet.add("ICEAttributeReader", at, size, **wires)


def _trainer(
    sheet: Sheet, model: Node, picture: Node, found: Node, at: Place, size: Place, **inputs: Any
) -> Node:
    wires = _wires(model, picture) | {"concepts": found["concepts"]}
    return sheet.add("ICEIntrinsicTrainer", at, size, **wires, **inputs)


def _save(sheet: Sheet, learned: Node, at: Place, size: Place, folder: str) -> None:
    sheet.add("ICESaveConcepts", at, size, learned=learned["learned"], folder=folder)


def _draw(
    sheet: Sheet,
    at: Place,
    size: Place,
    wire: object,
    model: Node,
    composed: Node,
    how: Drawing,
    batch: int = 4,
) -> Any:
    """The core's way from conditioning to a picture, as one node; returns the picture's wire."""
    inner, fields = draw(sheet.object_info, how, batch)
    wires: dict[str, Any] = {"model": wire, "positive": composed["conditioning"]}
    drawn = sheet.place(inner, at, size, fields=fields, clip=model["clip"], vae=model["vae"], **wires)
    return drawn["image"]


DESIGNS: Mapping[str, Callable[[Definitions], Sheet]] = {
    design.__name__: design for design in (demo, extract, two_photos, compose, own_masks, sdxl)
}
