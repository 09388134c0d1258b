"""Nodes that need no download: the bundled world."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ice_core.world.renderer import render
from ice_core.world.scenes import MAX_OBJECTS, sample_scene

from .types import schema


class DemoModel(io.ComfyNode):
    """The bundled model, as a checkpoint loader gives one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ICEDemoModel",
            display_name="ICE Demo Model",
            description=(
                "A small model of a rendered world that comes with this pack: try everything without a "
                "download. It draws 128 x 128 pictures of balls, cubes, cylinders, cones and rings."
            ),
            search_aliases=["example model", "test checkpoint", "no download"],
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model"),
                io.Clip.Output(display_name="clip"),
                io.Vae.Output(display_name="vae"),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        from .demo_model import load_demo_model

        return io.NodeOutput(*load_demo_model())


class DemoScene(io.ComfyNode):
    """A rendered scene with its true masks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ICEDemoScene",
            display_name="ICE Demo Scene",
            description="Renders a small scene of one to three solids, with the true mask and name of each.",
            search_aliases=["example image", "test scene", "sample picture"],
            shows_result=True,
            inputs=[
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**31 - 1,
                    control_after_generate=True,
                    tooltip="Another number draws another scene; the same number always the same one.",
                ),
                io.Int.Input(
                    "objects",
                    default=2,
                    min=1,
                    max=MAX_OBJECTS,
                    tooltip="How many solids stand in the scene.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image"),
                io.Mask.Output(display_name="masks", tooltip="One mask per object, as a batch."),
                io.String.Output(display_name="labels", tooltip="Kinds of the objects, separated by commas."),
            ],
        )

    @classmethod
    def execute(cls, seed: int, objects: int) -> io.NodeOutput:
        scene = sample_scene(seed, count=objects)
        rendered = render([scene])
        masks = rendered.masks[0, :objects].to(torch.float32)
        image = rendered.images.movedim(1, -1)
        labels = ", ".join(o.kind for o in scene.objects)
        return io.NodeOutput(image, masks, labels, ui=ui.PreviewImage(image, cls=cls))
