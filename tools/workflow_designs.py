"""The four example workflows: what is on each sheet, and what its notes say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tools.comfy_graph import Definitions
from tools.workflow_sheet import Node, Sheet

DEMO_SEED = 1
DEMO_PROMPT = "a photo of a {cone.color} {cone.material} {cube.object}"
COMPOSE_PROMPT = "a photo of a {a.cone.material} {b.cube.object}"
CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
SAVED = "embeddings/ice/demo"
"""Where the demo saves, as ICE Load Concepts lists it."""
PHOTO = "photo.png"

SMALL, LARGE = 128, 512
"""Sides in pixels of what the demo model and Stable Diffusion 1.5 paint."""


def demo(object_info: Definitions) -> Sheet:
    sheet = Sheet("1 - Demo without downloads", object_info)
    sheet.note(
        "**Press Run.** Nothing is downloaded: the model is a small one that comes with the pack, and the "
        "picture is rendered.\n\n"
        "1. A CLIP names what is in the picture, the attention of the model finds where it is.\n"
        "2. Each object gets tokens of its own: one for the object, one for each property.\n"
        "3. They are saved as embeddings and a LoRA, which the core's own nodes load with this model.\n"
        "4. A new picture mixes them.\n\n"
        "On two CPU cores this takes a few minutes. The small model paints small, rough pictures; "
        "the next template does the same with your photo and a Stable Diffusion 1.5 checkpoint.",
        (0, 0), (340, 370), "What this does",
    )  # fmt: skip
    model = sheet.add("ICEDemoModel", (0, 480), (340, 80))
    scene = sheet.add("ICEDemoScene", (0, 610), (340, 130), seed=DEMO_SEED, objects=2)
    sheet.add("PreviewImage", (0, 790), (340, 330), "The picture", images=scene["image"])
    words = sheet.add("ICEConceptRetriever", (400, 40), (360, 600), image=scene["image"])
    found = _segmentor(sheet, model, scene, (400, 690), words=words["words"])
    learned = _trainer(
        sheet,
        model,
        scene,
        found,
        (820, 40),
        steps=60,
        preview_every=20,
        refine_steps=40,
        lora_rank=4,
        words=words["words"],
    )
    sheet.add("LossGraphNode", (820, 1050), (400, 260), loss=learned["losses"])
    saved = sheet.add(
        "ICESaveConcepts", (1280, 40), (340, 110), learned=learned["learned"], folder="ice/demo",
        lora=learned["lora"],
    )  # fmt: skip
    _names(sheet, (1280, 200), (340, 200), saved)
    sheet.note(
        "Words in braces are what was learned: `{object name.property}`, properties before the thing. They "
        "are those of the trainer's *axes*, and `object` is the thing itself; `{cube}` alone is all of the "
        "cube.\n\n"
        "With the files that were saved you can write the same in a core *CLIP Text Encode*, with the names "
        "that are listed above.",
        (1280, 450), (340, 240), "What to write in the prompt",
    )  # fmt: skip
    composed = sheet.add(
        "ICEConceptComposer", (1280, 740), (340, 290), clip=model["clip"], prompt=DEMO_PROMPT,
        a=learned["learned"],
    )  # fmt: skip
    refined = sheet.add("LoraModelLoader", (1680, 40), (320, 130), model=model["model"], lora=learned["lora"])
    image = _generate(sheet, (1680, 220), refined["model"], model, composed["conditioning"], SMALL, batch=4)
    sheet.add("SaveImage", (2060, 40), (480, 780), images=image, filename_prefix="ice/demo")
    sheet.group("1 · A model and a picture", (-20, 420), (380, 720))
    sheet.group("2 · Find the objects", (380, -20), (400, 1350), "#8A8")
    sheet.group("3 · Learn them", (800, -20), (440, 1350), "#b58b2a")
    sheet.group("4 · Keep and use them", (1260, -20), (1300, 1080), "#a1309b")
    return sheet


def extract(object_info: Definitions) -> Sheet:
    sheet = Sheet("2 - Extract concepts from your photo", object_info)
    sheet.note(
        "1. Choose a **Stable Diffusion 1.x** checkpoint and your **photo**, any size.\n"
        "2. The retriever needs an open_clip model. Name one that is in your cache or can be fetched, or "
        "write `ViT-L-14-quickgelu=path/to/file.safetensors`. Without one, delete the retriever, "
        "set the segmentor's *mode* to *given words, one pass* and write what is in the photo into its "
        "*labels*.\n"
        "3. Press **Run**. On a graphics card this takes a minute or two; **Cancel** keeps what "
        "was learned, the next Run goes on from there.\n\n"
        "The tokens are saved as `embeddings/ice/photo/...`; what to write in a prompt is listed below "
        "*ICE Save Concepts*. For a closer likeness set the trainer's *refine_steps* to 300 and connect its "
        "*lora*. "
        "*3 - Compose learned concepts* makes new pictures of them.",
        (0, 0), (340, 380), "How to use this",
    )  # fmt: skip
    model = _checkpoint(sheet, (0, 460))
    photo = sheet.add("LoadImage", (0, 620), (340, 380), "Your photo", image=PHOTO)
    words = sheet.add(
        "ICEConceptRetriever", (400, 40), (360, 700), image=photo["image"], source="open_clip model"
    )
    found = _segmentor(sheet, model, photo, (800, 40), words=words["words"])
    learned = _trainer(
        sheet, model, photo, found, (1220, 40), steps=60, preview_every=20, words=words["words"]
    )
    sheet.add("LossGraphNode", (1680, 40), (360, 360), loss=learned["losses"])
    saved = sheet.add(
        "ICESaveConcepts", (1680, 500), (360, 110), learned=learned["learned"], folder="ice/photo"
    )
    _names(sheet, (1680, 660), (360, 340), saved)
    sheet.group("1 · Your model and your photo", (-20, 400), (380, 620))
    sheet.group("2 · Find the objects", (380, -20), (800, 1040), "#8A8")
    sheet.group("3 · Learn them", (1200, -20), (440, 1040), "#b58b2a")
    sheet.group("4 · Keep them", (1660, -20), (400, 1040), "#a1309b")
    return sheet


def compose(object_info: Definitions) -> Sheet:
    sheet = Sheet("3 - Compose learned concepts", object_info)
    sheet.note(
        "**The material of A on the object of B.**\n\n"
        "1. Choose two folders of saved concepts. They may be the same: *1 - Demo without downloads* saves "
        "into `ice/demo`, and this template is set to work with it as it is.\n"
        "2. Write the prompt. `{b.cube.object}` is what makes the *cube* of *b* that object; "
        "`{a.cone.material}` is the material of the *cone* of *a*. What each holds is listed "
        "below its loader after the first run.\n\n"
        "For concepts learned with a checkpoint, put **Load Checkpoint** with that checkpoint in the place "
        "of *ICE Demo Model*, and set the picture's size to 512 x 512.",
        (0, 0), (360, 400), "How to use this",
    )  # fmt: skip
    model = sheet.add("ICEDemoModel", (0, 480), (360, 80))
    first = sheet.add("ICELoadConcepts", (420, 40), (360, 90), "A: gives the material", folder=SAVED)
    sheet.add("PreviewAny", (420, 180), (360, 210), "What A holds", source=first["names"])
    second = sheet.add("ICELoadConcepts", (420, 440), (360, 90), "B: gives the object", folder=SAVED)
    sheet.add("PreviewAny", (420, 580), (360, 210), "What B holds", source=second["names"])
    composed = sheet.add(
        "ICEConceptComposer", (840, 40), (360, 290), clip=model["clip"], prompt=COMPOSE_PROMPT,
        a=first["learned"], b=second["learned"],
    )  # fmt: skip
    sheet.add("PreviewAny", (840, 380), (360, 160), "The same for CLIP Text Encode", source=composed["text"])
    image = _generate(sheet, (1260, 40), model["model"], model, composed["conditioning"], SMALL, batch=4)
    sheet.add("SaveImage", (1640, 40), (480, 560), images=image, filename_prefix="ice/composed")
    sheet.group("1 · The model", (-20, 420), (400, 170))
    sheet.group("2 · What was learned before", (400, -20), (400, 860), "#8A8")
    sheet.group("3 · Compose", (820, -20), (400, 600), "#b58b2a")
    sheet.group("4 · Generate", (1240, -20), (900, 960), "#a1309b")
    return sheet


def own_masks(object_info: Definitions) -> Sheet:
    sheet = Sheet("4 - Bring your own masks", object_info)
    sheet.note(
        "1. Choose a **Stable Diffusion 1.x** checkpoint and your photo.\n"
        "2. Right-click the photo, *Open in MaskEditor*, and paint over the object.\n"
        "3. Write what it is into the segmentor's *labels*, and press **Run**.\n\n"
        "The MASK of any other node will do as well, of SAM 3 for example, or *Load Image (as Mask)* with a "
        "black and white picture. For several objects give a batch of masks, which *Batch Masks* makes of "
        "single ones, and one word per mask in the same order, with commas between.",
        (0, 0), (340, 300), "How to use this",
    )  # fmt: skip
    model = _checkpoint(sheet, (0, 380))
    photo = sheet.add("LoadImage", (0, 540), (340, 440), "Your photo, with a mask painted on it", image=PHOTO)
    found = _segmentor(sheet, model, photo, (400, 40), mode="given masks", labels="vase", masks=photo["mask"])
    learned = _trainer(sheet, model, photo, found, (820, 40), steps=60, preview_every=20)
    saved = sheet.add(
        "ICESaveConcepts", (1280, 40), (360, 110), learned=learned["learned"], folder="ice/masked"
    )
    _names(sheet, (1280, 200), (360, 340), saved)
    sheet.group("1 · Your model and your photo", (-20, 320), (380, 680))
    sheet.group("2 · The mask with its word", (380, -20), (400, 1040), "#8A8")
    sheet.group("3 · Learn it", (800, -20), (440, 1040), "#b58b2a")
    sheet.group("4 · Keep it", (1260, -20), (400, 1040), "#a1309b")
    return sheet


def _checkpoint(sheet: Sheet, at: tuple[int, int]) -> Node:
    return sheet.add(
        "CheckpointLoaderSimple", at, (340, 100), "Your Stable Diffusion 1.x model", ckpt_name=CHECKPOINT
    )


def _wires(model: Node, picture: Node) -> dict[str, Any]:
    """What both stages look with, and at."""
    return {name: model[name] for name in ("model", "clip", "vae")} | {"image": picture["image"]}


def _segmentor(sheet: Sheet, model: Node, picture: Node, at: tuple[int, int], **inputs: Any) -> Node:
    return sheet.add("ICEAttentionSegmentor", at, (360, 640), **_wires(model, picture), **inputs)


def _trainer(
    sheet: Sheet, model: Node, picture: Node, found: Node, at: tuple[int, int], **inputs: Any
) -> Node:
    return sheet.add(
        "ICEIntrinsicTrainer", at, (400, 960), concepts=found["concepts"], **_wires(model, picture), **inputs
    )


def _names(sheet: Sheet, at: tuple[int, int], size: tuple[int, int], saved: Node) -> None:
    """Shows the `embedding:` names: a node's own text output is not drawn on it."""
    sheet.add("PreviewAny", at, size, "What to write in a prompt", source=saved["names"])


def _generate(
    sheet: Sheet, at: tuple[int, int], wire: object, model: Node, positive: object, side: int, batch: int
) -> object:
    """The core's way from conditioning to a picture; returns the picture's wire."""
    x, y = at
    nothing = sheet.add("CLIPTextEncode", (x, y), (320, 110), "Nothing to avoid", clip=model["clip"], text="")
    empty = sheet.add("EmptyLatentImage", (x, y + 160), (320, 110), width=side, height=side, batch_size=batch)
    latent = sheet.add(
        "KSampler", (x, y + 320), (320, 270), model=wire, positive=positive,
        negative=nothing["conditioning"], latent_image=empty["latent"], seed=0, steps=20, cfg=7.0,
        sampler_name="dpmpp_2m", scheduler="karras",
    )  # fmt: skip
    decoded = sheet.add("VAEDecode", (x, y + 640), (320, 60), samples=latent["latent"], vae=model["vae"])
    return decoded["image"]


DESIGNS: Mapping[str, Callable[[Definitions], Sheet]] = {
    design.__name__: design for design in (demo, extract, compose, own_masks)
}
