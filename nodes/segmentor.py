"""The node that finds the objects of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ice_core.errors import IceError

from .graph import EVERY, MASKS, ONE_PASS, submitted_inputs
from .types import Concepts, FoundWords, Words, schema
from .values import (
    Cancellable,
    Progress,
    at,
    image_of,
    masks_in,
    masks_of,
    pictures_of,
    preview,
    say,
    words_in,
)

if TYPE_CHECKING:
    from ice_core.concepts import ConceptSet
    from ice_core.localization.config import LocalizationConfig
    from ice_core.localization.loop import LocalizationRound

_CONNECT_WORDS = f"the mode {EVERY!r} needs `words`: connect an ICE Concept Retriever, or name the objects"


@dataclass(frozen=True)
class Found:
    """What is told of one picture. masks: [B, H, W] at its size; overlay, rounds: [1, H, W, 3]."""

    concepts: ConceptSet
    masks: Tensor
    overlay: Tensor
    rounds: Tensor


class AttentionSegmentor(io.ComfyNode):
    """Stage One: objects with masks, by the diffusion model's own attention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ICEAttentionSegmentor",
            display_name="ICE Attention Segmentor",
            description="Finds the objects of a picture and their masks with the diffusion model itself, or "
            "takes masks that you give it.",
            search_aliases=["segment", "mask by word", "find objects", "attention mask", "localize"],
            shows_result=True,
            rare=("max_rounds", "min_area", "unexplained", "seed"),
            hidden=[io.Hidden.unique_id],
            is_input_list=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="A Stable Diffusion 1.x, 2.x or XL model, or the ICE Demo Model."
                ),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                io.Image.Input(
                    "image",
                    tooltip="The picture, of any size. Those of a batch are taken one by one, and each gives "
                    "concepts of its own.",
                ),
                io.Combo.Input(
                    "mode",
                    options=[EVERY, ONE_PASS, MASKS],
                    default=EVERY,
                    tooltip=f"'{EVERY}': all that is no background, taken apart and named by `words`. "
                    f"'{ONE_PASS}': look for each of the words once. '{MASKS}': take `masks`, with one of "
                    "the `labels` each, or named by `words`.",
                ),
                io.String.Input(
                    "labels",
                    default="",
                    multiline=True,
                    tooltip="Names of the objects, with commas between or one per line, for the modes with "
                    "given words or masks. Left blank, `words` has them: all it found, or one for each mask.",
                ),
                io.Int.Input(
                    "max_rounds",
                    default=10,
                    min=1,
                    max=50,
                    tooltip=f"'{EVERY}' keeps at most so many objects, the largest.",
                ),
                io.Float.Input(
                    "min_area",
                    default=0.025,
                    min=0.0,
                    max=0.9,
                    step=0.005,
                    tooltip="An object covers more than this share of the picture; smaller finds are "
                    "dropped. Lower it for small objects.",
                ),
                io.Float.Input(
                    "unexplained",
                    default=0.1,
                    min=0.0,
                    max=0.95,
                    step=0.01,
                    tooltip=f"Where nothing stands out, '{EVERY}' tries word by word, until "
                    "less than this share of the picture is left.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**31 - 1,
                    tooltip="Of the noise that the model looks through; another one can find other edges.",
                ),
                Words.Input(
                    "words", optional=True, tooltip="From the ICE Concept Retriever: it names the objects."
                ),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip=f"For '{MASKS}': a batch, one mask per object, of any size, from any node; for "
                    "several pictures a list of such batches.",
                ),
                io.Boolean.Input(
                    "refine_masks",
                    default=False,
                    optional=True,
                    tooltip=f"For '{MASKS}': they are rough (a box, a brush's strokes, another model's), "
                    "draw them anew along the picture's contours.",
                ),
            ],
            outputs=[
                Concepts.Output(
                    display_name="concepts", is_output_list=True, tooltip="For the ICE Intrinsic Trainer."
                ),
                io.Mask.Output(
                    display_name="masks",
                    is_output_list=True,
                    tooltip="One mask per object, at the image's size.",
                ),
                io.String.Output(
                    display_name="labels", is_output_list=True, tooltip="The name of an object per line."
                ),
                io.Image.Output(
                    display_name="overlay",
                    is_output_list=True,
                    tooltip="The picture with the masks drawn on it.",
                ),
                io.Image.Output(
                    display_name="rounds",
                    is_output_list=True,
                    tooltip=f"How '{EVERY}' came about: what was looked at, the words that were considered, "
                    "what was found. In the other modes the overlay.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, labels: Sequence[str | None]) -> bool | str:
        """Refuse before the queue runs what can be seen from the graph alone."""
        named = at(labels, 0)
        inputs = submitted_inputs(cls.hidden.unique_id, "ICEAttentionSegmentor")
        mode = inputs.get("mode")
        if mode == EVERY and "words" not in inputs:
            return _CONNECT_WORDS
        if mode == MASKS and "masks" not in inputs:
            return _connect_masks()
        if mode in (ONE_PASS, MASKS) and named is not None and not words_in(named) and "words" not in inputs:
            return _no_labels()
        return True

    @classmethod
    def execute(cls, image: Sequence[Tensor], **given: Sequence[Any]) -> io.NodeOutput:
        pictures = [picture for batch in image for picture in pictures_of(batch)]
        masks = [one for one in given.get("masks", ()) if one is not None]
        if masks and len(pictures) > 1 and len(masks) != len(pictures):
            raise IceError(
                f"{len(masks)} batches of masks for {len(pictures)} pictures: give each picture a batch of "
                "its own, as a list, or take the pictures one by one"
            )
        every: list[Found] = []
        failures = []
        for n, picture in enumerate(pictures):
            try:
                every.append(_found(picture, **{name: at(values, n) for name, values in given.items()}))
            except IceError as error:
                if len(pictures) == 1:
                    raise
                failures.append(f"picture {n + 1}: {error}")
        if not every:
            raise IceError("; ".join(failures))
        if failures:
            say("\n".join([f"{len(every)} of {len(pictures)} pictures", *failures]))
        overlays = [found.overlay for found in every]
        return io.NodeOutput(
            [found.concepts for found in every],
            [found.masks for found in every],
            ["\n".join(concept.key for concept in found.concepts.concepts) for found in every],
            overlays,
            [found.rounds for found in every],
            ui=preview(overlays, cls),
        )


def _found(
    picture: Tensor,
    model: Any,
    clip: Any,
    vae: Any,
    mode: str,
    labels: str,
    max_rounds: int,
    min_area: float,
    unexplained: float,
    seed: int,
    words: FoundWords | None = None,
    masks: Tensor | None = None,
    refine_masks: bool = False,
) -> Found:
    """The objects of one picture [3, H, W]. Raises IceError where there are none."""
    from ice_core.figures.pictures import overlay
    from ice_core.figures.rounds import rounds_figure
    from ice_core.files.images import resize, working_size
    from ice_core.localization.config import LocalizationConfig
    from ice_core.localization.given import concepts_from_labels, concepts_from_masks

    from .host.backbone import ComfyBackbone

    config = LocalizationConfig(max_rounds=max_rounds, min_area=min_area, unexplained=unexplained)
    backbone: Any = Cancellable(ComfyBackbone(model, clip, vae))
    height, width = picture.shape[-2:]
    rounds: list[LocalizationRound] = []
    small = resize(picture, working_size(height, width, backbone.native_size, backbone.multiple))
    if mode == EVERY:
        rounds = _find_every(backbone, words, small, config, seed)
        result = rounds[-1].result
    elif mode == ONE_PASS:
        given = _labels(labels, words)
        towers = words.retriever.model if words else None
        rng = torch.Generator().manual_seed(seed)
        result = concepts_from_labels(backbone, small, given, config, rng, towers)
    elif masks is None:
        raise IceError(_connect_masks())
    else:
        named = words_in(labels) or None
        retriever = words.retriever if words else None
        result = concepts_from_masks(small, named, masks_in(masks), retriever, refine_masks)
    if not result.concepts:
        what = "" if mode == EVERY else f"of {', '.join(_labels(labels, words))} "
        raise IceError(
            f"no object {what}was found: try other words or another seed, lower min_area, or give masks "
            f"with the mode {MASKS!r}"
        )
    drawn = image_of(overlay(picture, result.concepts))
    return Found(
        result,
        masks_of(result.concepts, (height, width)),
        drawn,
        image_of(rounds_figure(rounds)) if rounds else drawn,
    )


def _find_every(
    backbone: Any, words: FoundWords | None, picture: Tensor, config: LocalizationConfig, seed: int
) -> list[LocalizationRound]:
    """The whole of Stage One, with the overlay as it grows."""
    from ice_core.figures.pictures import overlay
    from ice_core.localization.loop import localize

    if words is None:
        raise IceError(_CONNECT_WORDS)
    progress = Progress(config.max_rounds)
    progress(0)
    generator = torch.Generator().manual_seed(seed)
    rounds = []
    for step in localize(backbone, words.retriever, picture, config, generator):
        rounds.append(step)
        progress(step.index, overlay(picture, step.result.concepts))
    progress(config.max_rounds)
    return rounds


def _labels(text: str, words: FoundWords | None) -> Sequence[str]:
    """The user's words, or those that were retrieved."""
    labels = words_in(text) or [word.label for word in (words.words if words else ())]
    if not labels:
        raise IceError(_no_labels())
    return labels


def _no_labels() -> str:
    return "`labels` is empty: name the objects, for example 'ball, cube', or connect `words`"


def _connect_masks() -> str:
    return f"the mode {MASKS!r} needs `masks`: connect one mask per word, or choose another mode"
