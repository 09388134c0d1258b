"""The node that names what a picture shows."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ice_core.errors import IceError

from . import clip_weights
from .drawings import word_chart
from .naming import BUNDLED, CONNECTED, OPEN_CLIP, vocabulary_of
from .types import FoundWords, Words, schema
from .values import Progress, image_of, pictures_of, preview, say

_DOWNLOADS = ", ".join(f"{name.partition('/')[0]} {size}" for name, size in clip_weights.DOWNLOADS.items())
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
                io.Image.Input(
                    "image", tooltip="The picture, of any size. Those of a batch are looked at one by one."
                ),
                io.Combo.Input(
                    "source",
                    options=[BUNDLED, OPEN_CLIP, CONNECTED],
                    default=BUNDLED,
                    tooltip="Which CLIP looks at the picture. The bundled one knows the rendered demo world "
                    "only; for photographs take an open_clip model, or connect CLIP_VISION and the CLIP of "
                    "a checkpoint that belong together.",
                ),
                io.Combo.Input(
                    "open_clip_model",
                    options=clip_weights.choices(),
                    default=next(iter(clip_weights.DOWNLOADS)),
                    tooltip="For the source 'open_clip model'. Files of whole open_clip models in "
                    "models/clip_vision, models/text_encoders or models/open_clip are listed with what they "
                    f"are. Those with a slash are downloaded on first use: {_DOWNLOADS}.",
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
                Words.Output(
                    display_name="words", is_output_list=True, tooltip="For the ICE Attention Segmentor."
                ),
                io.String.Output(
                    display_name="text", is_output_list=True, tooltip="A word and its similarity per line."
                ),
                io.Image.Output(
                    display_name="chart", is_output_list=True, tooltip="The same as a bar chart."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, open_clip_model: str | None) -> bool | str:
        """Anything: workflows of earlier versions name models that are not in the list."""
        return True

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

        pictures = pictures_of(image)
        words = vocabulary_of(source, vocabulary)
        towers = _towers(source, open_clip_model, clip_vision, clip)
        retriever = Retriever(towers, words, image_mean=None if source == BUNDLED else "photographs")
        progress = Progress(len(words.words))
        for done in retriever.prepare():
            progress(done)
        every = [tuple(retriever.retrieve(picture)[:count]) for picture in pictures]
        if not any(every):
            raise IceError(
                f"none of the {len(words.words)} words explains the picture: give other words in "
                "`vocabulary`, or choose another CLIP as `source`"
            )
        # A picture of a batch that no word explains has none: the others go on.
        texts = ["\n".join(f"{word.label} {word.similarity:.3f}" for word in found) for found in every]
        charts = [image_of(word_chart(found)) for found in every]
        return io.NodeOutput(
            [FoundWords(found, retriever) for found in every], texts, charts, ui=preview(charts, cls)
        )


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

    from ice_core.localization.retrieval.towers import download_size, open_towers

    if size := download_size(text):
        say(f"downloading {text}, {size / 1e9:.1f} GB")
    return open_towers(clip_weights.as_named(text), comfy.model_management.text_encoder_device())
