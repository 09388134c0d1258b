"""The node that reads what the objects of a picture are like, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from comfy_api.latest import io, ui

from ice_core.concepts import ConceptSet, Readings
from ice_core.errors import IceError

from .types import Concepts, Words, schema
from .values import Cancellable, image_of, say, words_in


class AttributeReader(io.ComfyNode):
    """A table of values with probabilities, and the same as text that the trainer takes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ICEAttributeReader",
            display_name="ICE Attribute Reader",
            description="Reads what every object is like, as a table with how sure it is, and lets you set "
            "it right before the training.",
            search_aliases=["color of object", "material", "describe object", "attributes", "properties"],
            shows_result=True,
            rare=("seed",),
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that the concepts are learned with. It is not changed."
                ),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint. It is not changed."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                Concepts.Input("concepts", tooltip="From the ICE Attention Segmentor."),
                io.String.Input(
                    "axes",
                    default="color, material, pattern",
                    tooltip="Properties to read, as the trainer has them.",
                ),
                io.String.Input(
                    "overrule",
                    default="",
                    multiline=True,
                    tooltip="What an object is like, where it is misread: vase.material=ceramic, one a line. "
                    "Without a value the property is left out.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**31 - 1,
                    tooltip="Of the noise that a model reads through.",
                ),
                Words.Input(
                    "words",
                    optional=True,
                    tooltip="From the ICE Concept Retriever: its CLIP then reads what the objects are like. "
                    "Without it the demo's model is read by its own CLIP, any other reads for itself.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="overrule", tooltip="For `overrule` of the ICE Intrinsic Trainer."
                ),
                io.Image.Output(
                    display_name="readings", tooltip="What was read of each object, and how surely."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, axes: str | None, overrule: str | None) -> bool | str:
        """Refuse, before the queue runs, axes that are no plain words, and what overrules none of them."""
        from ice_core.attributes.axes import parse_axes
        from ice_core.attributes.overruling import check_overruled

        try:
            if axes is not None:
                check_overruled(words_in(overrule or ""), parse_axes(words_in(axes)))
        except IceError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        concepts: ConceptSet,
        axes: str,
        overrule: str,
        seed: int,
        words: Any = None,
    ) -> io.NodeOutput:
        from ice_core.api import axes_for, reading_for
        from ice_core.figures.reading_table import reading_table
        from ice_core.run.pipeline import finish
        from ice_core.run.reading import Question, read
        from ice_core.run.settings import ExtractionSettings
        from ice_core.training.config import TrainingConfig

        from .demo_model import bundled_towers, is_demo_model
        from .host.backbone import ComfyBackbone
        from .host.weights import gradients

        demo = is_demo_model(model)
        towers = words.retriever.model if words is not None else bundled_towers() if demo else None
        asked = Question(axes_for(demo, words_in(axes), files=False), tuple(words_in(overrule)), towers)
        names = tuple(axis.name for axis in asked.axes)
        with gradients():
            backbone: Any = Cancellable(ComfyBackbone(model, clip, vae))
            settings = ExtractionSettings(TrainingConfig(names, seed=seed), reading=reading_for(demo))
            readings = finish(read(backbone, concepts, asked, settings))
        say(text := "\n".join(lines(readings)))
        table = image_of(reading_table(concepts.image, concepts.concepts, readings))
        return io.NodeOutput(text, table, ui=ui.PreviewImage(table, cls=cls))


def lines(readings: Readings) -> Iterator[str]:
    """Readings as the trainer's `overrule` takes them: "vase.material=ceramic", with no value where nothing
    fits. A free axis, of which nothing is read, has none."""
    for key, axes in readings.items():
        for axis, reading in axes.items():
            if reading.value or not reading.fits:
                yield f"{key}.{axis}={reading.value or ''}"
