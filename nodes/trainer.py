"""The node that learns tokens, and a LoRA, from the objects of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io
from torch import Tensor

from ice_core.concepts import ConceptSet
from ice_core.errors import IceError
from ice_core.run.defaults import ANCHORED_STEPS, BUNDLED_STEPS, CHECKPOINT_STEPS, METHOD, METHODS

from .graph import TRAINER
from .places import PicturedConcepts
from .quality import AS_SET, QUALITIES, USUAL, steps_for
from .types import Concepts, Learned, Words, schema
from .values import Cancellable, at, image_of, pictures_of, preview, refit, say, words_in

if TYPE_CHECKING:
    from .training_run import Job

AUTO, ON, OFF = "auto", "on", "off"
CHECKPOINTING = (AUTO, ON, OFF)
RARE = (
    "steps",
    "learning_rate",
    "seed",
    "preview_every",
    "lora_rank",
    "resume",
    "overrule",
    "lora_text_encoders",
    "gradient_checkpointing",
)
"""Inputs that most people leave alone."""


class IntrinsicTrainer(io.ComfyNode):
    """Stage Two: an object token and a token per axis for every object."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=TRAINER,
            display_name="ICE Intrinsic Trainer",
            description="Learns what each object is and one token for each of its properties. Cancel keeps "
            "what was learned.",
            search_aliases=["train embedding", "textual inversion", "learn concept", "train lora"],
            shows_result=True,
            is_input_list=True,
            rare=RARE,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A Stable Diffusion 1.x, 2.x or XL model, or the ICE Demo Model. It is not "
                    "changed.",
                ),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint. It is not changed."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                io.Image.Input(
                    "image",
                    tooltip="The picture that the concepts were found in; of a batch, each with its own.",
                ),
                Concepts.Input(
                    "concepts",
                    tooltip="From the ICE Attention Segmentor. Those of several pictures are learned one "
                    "after the other; where one fails, the others go on.",
                ),
                io.String.Input(
                    "axes",
                    default="color, material, pattern",
                    tooltip="Properties to learn, one plain word each, with commas between: color, texture, "
                    "style, finish=matte|glossy|satin, ... Each becomes a token of every object where it "
                    "can be told.",
                ),
                io.Int.Input(
                    "steps",
                    default=ANCHORED_STEPS,
                    min=2,
                    max=20000,
                    tooltip="At most so many, where `quality` says so: 'anchored' ends when it has settled, "
                    f"{ANCHORED_STEPS} are usual. 'paper' and 'inversion' need {BUNDLED_STEPS} with the "
                    f"demo's model and {CHECKPOINT_STEPS} with a large one. 'words' takes none.",
                ),
                io.Float.Input(
                    "learning_rate",
                    default=5e-4,
                    min=1e-6,
                    max=0.1,
                    step=1e-5,
                    tooltip="For the methods 'paper' and 'inversion': how far a step goes, in proportion to "
                    "the size of the model's own words. Lower it when training diverges.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**31 - 1,
                    tooltip="The same seed and settings learn the same tokens.",
                ),
                io.Int.Input(
                    "preview_every",
                    default=50,
                    min=0,
                    max=20000,
                    tooltip="Draw a live picture every so many steps, which takes a few seconds; 0 for none.",
                ),
                io.Int.Input(
                    "refine_steps",
                    default=0,
                    min=0,
                    max=20000,
                    tooltip="Steps that afterwards tune the model's attention as a LoRA, for a closer "
                    "likeness; 300 are usual. 0 learns tokens only, and the output `lora` stays silent.",
                ),
                io.Int.Input(
                    "lora_rank",
                    default=4,
                    min=1,
                    max=128,
                    tooltip="Of the LoRA: a higher rank can take in more, and makes a larger file.",
                ),
                io.Boolean.Input(
                    "resume",
                    default=True,
                    tooltip="Go on where a cancelled training of the same picture, model and settings "
                    "stopped. Off: always start anew.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=METHOD,
                    optional=True,
                    tooltip="words: the objects' tokens are the words read of them, nothing is trained. "
                    "anchored: tokens start there and learn what words cannot say. paper: as published. "
                    "inversion: one plain token per object.",
                ),
                io.String.Input(
                    "overrule",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="What an object is like, where it is misread: vase.material=ceramic, one a line. "
                    "Without a value the property is left out.",
                ),
                Words.Input(
                    "words",
                    optional=True,
                    tooltip="From the ICE Concept Retriever: its CLIP then reads what the objects are like. "
                    "Without it the demo's model is read by its own CLIP, any other reads for itself.",
                ),
                io.Combo.Input(
                    "quality",
                    options=list(QUALITIES),
                    default=USUAL,
                    optional=True,
                    tooltip="How long to train: 'quick' a quarter of what the method and the model usually "
                    f"need, 'thorough' twice as much. '{AS_SET}' takes the number in `steps`.",
                ),
                io.Boolean.Input(
                    "lora_text_encoders",
                    default=False,
                    optional=True,
                    tooltip="Whether the LoRA tunes the text encoders too; Load LoRA then takes model and "
                    "CLIP.",
                ),
                io.Combo.Input(
                    "gradient_checkpointing",
                    options=list(CHECKPOINTING),
                    default=AUTO,
                    optional=True,
                    tooltip="Train in less memory and more time, with the same result but for rounding. "
                    f"{AUTO}: where free memory would not do otherwise.",
                ),
            ],
            outputs=[
                Learned.Output(
                    display_name="learned",
                    is_output_list=True,
                    tooltip="For ICE Save Concepts and ICE Concept Composer.",
                ),
                io.LoraModel.Output(
                    display_name="lora",
                    is_output_list=True,
                    tooltip="For Load LoRA Model; nothing that it leads to runs when refine_steps is 0.",
                ),
                io.LossMap.Output(
                    display_name="losses",
                    is_output_list=True,
                    tooltip="For Plot Loss Graph, as a running mean.",
                ),
                io.Image.Output(
                    display_name="picture", is_output_list=True, tooltip="Everything at a glance."
                ),
                io.Image.Output(
                    display_name="readings",
                    is_output_list=True,
                    tooltip="What was read of each object, and how surely.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, axes: Sequence[str | None], overrule: Sequence[str | None] = (None,)
    ) -> bool | str:
        """Refuse, before the queue runs, axes that are no plain words, and what overrules none of them."""
        from ice_core.attributes.axes import parse_axes
        from ice_core.attributes.overruling import check_overruled
        from ice_core.training.config import TrainingConfig

        try:
            if (names := at(axes, 0)) is not None:
                asked = parse_axes(words_in(names))
                TrainingConfig(axes=tuple(axis.name for axis in asked))
                check_overruled(words_in(at(overrule, 0) or ""), asked)
        except IceError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        image: Sequence[Tensor],
        concepts: Sequence[ConceptSet],
        resume: Sequence[bool],
        **given: Sequence[Any],
    ) -> io.NodeOutput:
        import folder_paths
        from comfy_execution.graph import ExecutionBlocker

        from ice_core.figures.reading_table import reading_table
        from ice_core.files.lora import lora_state_dict

        from .host.weights import gradients
        from .training_run import run_all

        pictures = [picture for batch in image for picture in pictures_of(batch)]
        kept_in = Path(folder_paths.get_output_directory()) / "ice" / "interrupted"
        failures: dict[int, Exception] = {}
        jobs: dict[int, Job] = {}
        with gradients():
            for n, found in enumerate(concepts):
                settings = {name: at(values, n) for name, values in given.items()}
                try:
                    jobs[n] = _job(found, pictures[n:] + pictures[:n], **settings)
                except IceError as error:
                    if len(concepts) == 1:
                        raise
                    failures[n] = error
            outcomes = run_all(jobs, kept_in, at(resume, 0), len(concepts))
        results = {n: result for n, result in outcomes.items() if not isinstance(result, Exception)}
        failures |= {n: result for n, result in outcomes.items() if isinstance(result, Exception)}
        told = [f"picture {n + 1}: {error}" for n, error in sorted(failures.items())]
        if not results:
            raise IceError("; ".join(told))
        if told:
            say("\n".join([f"{len(results)} of {len(concepts)} pictures were learned", *told]))
        sheets = [image_of(result.sheet) for result in results.values()]
        fitted = [jobs[n].concepts for n in results]
        return io.NodeOutput(
            [PicturedConcepts.of(result.saved) for result in results.values()],
            [
                ExecutionBlocker(None) if result.lora is None else lora_state_dict(result.lora)
                for result in results.values()
            ],
            [{"loss": list(result.losses)} for result in results.values()],
            sheets,
            [
                image_of(reading_table(found.image, found.concepts, result.readings))
                for found, result in zip(fitted, results.values(), strict=True)
            ],
            ui=preview(sheets, cls),
        )


def _job(
    concepts: ConceptSet,
    pictures: Sequence[Tensor],
    model: Any,
    clip: Any,
    vae: Any,
    axes: str,
    steps: int,
    learning_rate: float,
    seed: int,
    preview_every: int,
    refine_steps: int,
    lora_rank: int,
    method: str = METHOD,
    overrule: str = "",
    words: Any = None,
    quality: str = AS_SET,
    lora_text_encoders: bool = False,
    gradient_checkpointing: str = AUTO,
) -> Job:
    """What is to be learned of one picture, the first of `pictures` that the concepts were found in.

    Raises IceError for settings that cannot be, and where the concepts are of none of them.
    """
    from ice_core.api import axes_for, reading_for, showing_for
    from ice_core.files.embeddings import check_names
    from ice_core.run.reading import Question
    from ice_core.training.config import TrainingConfig
    from ice_core.training.refinement_state import RefinementConfig

    from .demo_model import bundled_towers, is_demo_model
    from .host.backbone import ComfyBackbone
    from .training_run import Job

    demo = is_demo_model(model)
    towers = words.retriever.model if words is not None else bundled_towers() if demo else None
    asked = Question(axes_for(demo, words_in(axes), files=False), tuple(words_in(overrule)), towers)
    training = TrainingConfig(
        tuple(axis.name for axis in asked.axes),
        steps_for(quality, method, demo, steps),
        learning_rate=learning_rate,
        seed=seed,
        method=method,  # type: ignore[arg-type]
    )
    refinement = RefinementConfig(
        steps=refine_steps, rank=lora_rank, text_encoders=lora_text_encoders and refine_steps > 0
    )
    check_names([concept.key for concept in concepts.concepts], training.axes)
    host = ComfyBackbone(model, clip, vae)
    backbone: Any = Cancellable(host)
    picture, fitted = _fitted(concepts, pictures, backbone)
    copies = training.copies(len(fitted.concepts))
    height, width = fitted.image.shape[-2:]
    short = gradient_checkpointing == AUTO and not host.has_room_for(copies, height, width)
    if short or gradient_checkpointing == ON:
        host.checkpoint_gradients()
    return Job(
        backbone, picture, fitted, training, refinement, preview_every, asked, showing_for(demo),
        reading_for(demo),
    )  # fmt: skip


def _fitted(concepts: ConceptSet, pictures: Sequence[Tensor], backbone: Any) -> tuple[Tensor, ConceptSet]:
    """The picture that concepts are of, and they at the size that the model works at."""
    from ice_core.files.images import working_size

    first: IceError | None = None
    for picture in pictures:
        height, width = picture.shape[-2:]
        size = working_size(height, width, backbone.native_size, backbone.multiple)
        try:
            return picture, refit(concepts, picture, size)
        except IceError as error:
            first = first or error
    raise first or IceError("there is no picture: connect the image that the concepts were found in")
