"""The node that names what a picture shows."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ice_core.errors import IceError

from .drawings import word_chart
from .naming import BUNDLED, CONNECTED, OPEN_CLIP, vocabulary_of
from .types import FoundWords, Words, schema
from .values import Progress, image_of, picture_of

_REMEDY = f"use the source {OPEN_CLIP!r}"


class ConceptRetriever(io.ComfyNode):
    """Words for a picture, by sparse decomposition of its CLIP embedding."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ICEConceptRetriever",
            display_name="ICE Concept Retriever",
            description="Names what a picture shows, with CLIP and a vocabulary.",
            search_aliases=[
                "interrogate",
                "tag image",
                "clip interrogator",
                "caption",
                "what is in the image",
            ],
            shows_result=True,
            rare=("vocabulary", "count"),
            inputs=[
                io.Image.Input("image", tooltip="The picture, of any size; one, not a batch of several."),
                io.Combo.Input(
                    "source",
                    options=[BUNDLED, OPEN_CLIP, CONNECTED],
                    default=BUNDLED,
                    tooltip="Which CLIP looks at the picture. The bundled one knows the rendered demo world "
                    "only; for photographs take an open_clip model, or connect CLIP_VISION and the CLIP of "
                    "a checkpoint that belong together.",
                ),
                io.String.Input(
                    "open_clip_model",
                    default="ViT-L-14-quickgelu/openai",
                    tooltip="For the source 'open_clip model': NAME/WEIGHTS, downloaded on first use, or "
                    "NAME=FILE.safetensors.",
                ),
                io.String.Input(
                    "vocabulary",
                    default="",
                    multiline=True,
                    tooltip="Words to choose from, with commas between or one per line. Left blank, the "
                    "built-in names of what photographs show (of the demo's world for the bundled CLIP).",
                ),
                io.Int.Input(
                    "count",
                    default=8,
                    min=1,
                    max=100,
                    tooltip="At most so many words are passed on and shown.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="For the source 'connected CLIP_VISION': ViT-H/14 for SD 2.x, ViT-bigG/14 for "
                    "SDXL.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="For the source 'connected CLIP_VISION': the CLIP of an SD 2.x or SDXL "
                    "checkpoint. That of SD 1.x lacks the projection that this needs.",
                ),
            ],
            outputs=[
                Words.Output(display_name="words", tooltip="For the ICE Attention Segmentor."),
                io.String.Output(display_name="text", tooltip="A word and its similarity per line."),
                io.Image.Output(display_name="chart", tooltip="The same as a bar chart."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        source: str,
        open_clip_model: str,
        vocabulary: str,
        count: int,
        clip_vision: Any = None,
        clip: Any = None,
    ) -> io.NodeOutput:
        from ice_core.localization.retrieval.retriever import Retriever

        picture = picture_of(image)
        words = vocabulary_of(source, vocabulary)
        towers = _towers(source, open_clip_model, clip_vision, clip)
        retriever = Retriever(towers, words, image_mean=None if source == BUNDLED else "photographs")
        progress = Progress(len(words.words))
        for done in retriever.prepare():
            progress(done)
        found = tuple(retriever.retrieve(picture)[:count])
        if not found:
            raise IceError(
                f"none of the {len(words.words)} words explains the picture: give other words in "
                "`vocabulary`, or choose another CLIP as `source`"
            )
        text = "\n".join(f"{word.label} {word.similarity:.3f}" for word in found)
        chart = image_of(word_chart(found))
        return io.NodeOutput(FoundWords(found, retriever), text, chart, ui=ui.PreviewImage(chart, cls=cls))


def _towers(source: str, open_clip_model: str, clip_vision: Any, clip: Any) -> Any:
    """The image and the text tower that a source stands for."""
    if source == BUNDLED:
        from .demo_model import bundled_towers

        return bundled_towers()
    if source == OPEN_CLIP:
        return _open_clip(open_clip_model.strip())
    if clip_vision is None or clip is None:
        missing = " and ".join(
            name for name, wire in (("clip_vision", clip_vision), ("clip", clip)) if wire is None
        )
        raise IceError(f"the source {CONNECTED!r} needs {missing}: connect it, or choose another source")
    from .host.clip_vision import ConnectedTowers

    return ConnectedTowers(clip_vision, clip, _REMEDY)


@lru_cache(maxsize=1)
def _open_clip(text: str) -> Any:
    """Towers by NAME/WEIGHTS or NAME=FILE, kept until another model is asked for."""
    import comfy.model_management

    from ice_core.localization.retrieval.towers import load_open_clip

    name, _, weights = (text, "", "") if "=" in text else text.partition("/")
    return load_open_clip(name, weights or None, comfy.model_management.text_encoder_device())
