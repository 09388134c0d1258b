"""The node that learns tokens, and a LoRA, from the objects of a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui
from torch import Tensor

from ice_core.concepts import ConceptSet
from ice_core.errors import IceError
from ice_core.run.defaults import ANCHORED_STEPS, BUNDLED_STEPS, CHECKPOINT_STEPS, METHOD, METHODS

from .graph import TRAINER
from .places import PicturedConcepts
from .quality import AS_SET, QUALITIES, USUAL, steps_for
from .types import Concepts, Learned, Words, schema
from .values import Cancellable, image_of, picture_of, refit, words_in


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
            rare=("steps", "learning_rate", "seed", "preview_every", "lora_rank", "resume", "overrule"),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A Stable Diffusion 1.x, 2.x or XL model, or the ICE Demo Model. It is not "
                    "changed.",
                ),
                io.Clip.Input("clip", tooltip="The CLIP of the same checkpoint. It is not changed."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                io.Image.Input("image", tooltip="The picture that the concepts were found in."),
                Concepts.Input("concepts", tooltip="From the ICE Attention Segmentor."),
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
            ],
            outputs=[
                Learned.Output(
                    display_name="learned", tooltip="For ICE Save Concepts and ICE Concept Composer."
                ),
                io.LoraModel.Output(
                    display_name="lora",
                    tooltip="For Load LoRA Model; nothing that it leads to runs when refine_steps is 0.",
                ),
                io.LossMap.Output(display_name="losses", tooltip="For Plot Loss Graph, as a running mean."),
                io.Image.Output(display_name="picture", tooltip="Everything at a glance."),
                io.Image.Output(
                    display_name="readings", tooltip="What was read of each object, and how surely."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, axes: str | None, overrule: str | None = None) -> bool | str:
        """Refuse, before the queue runs, axes that are no plain words, and what overrules none of them."""
        from ice_core.attributes.axes import parse_axes
        from ice_core.attributes.overruling import check_overruled
        from ice_core.training.config import TrainingConfig

        try:
            if axes is not None:
                asked = parse_axes(words_in(axes))
                TrainingConfig(axes=tuple(axis.name for axis in asked))
                check_overruled(words_in(overrule or ""), asked)
        except IceError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        image: Tensor,
        concepts: ConceptSet,
        axes: str,
        steps: int,
        learning_rate: float,
        seed: int,
        preview_every: int,
        refine_steps: int,
        lora_rank: int,
        resume: bool,
        method: str = METHOD,
        overrule: str = "",
        words: Any = None,
        quality: str = AS_SET,
    ) -> io.NodeOutput:
        import folder_paths
        from comfy_execution.graph import ExecutionBlocker

        from ice_core.api import axes_for, showing_for
        from ice_core.figures.reading_table import reading_table
        from ice_core.files.embeddings import check_names
        from ice_core.files.images import working_size
        from ice_core.files.lora import lora_state_dict
        from ice_core.run.reading import Question
        from ice_core.training.config import TrainingConfig
        from ice_core.training.refinement_state import RefinementConfig

        from .demo_model import bundled_towers, is_demo_model
        from .host.backbone import ComfyBackbone
        from .host.weights import gradients
        from .training_run import Job, run

        picture = picture_of(image)
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
        refinement = RefinementConfig(steps=refine_steps, rank=lora_rank)
        check_names([concept.key for concept in concepts.concepts], training.axes)
        kept_in = Path(folder_paths.get_output_directory()) / "ice" / "interrupted"
        with gradients():
            backbone: Any = Cancellable(ComfyBackbone(model, clip, vae))
            height, width = picture.shape[-2:]
            size = working_size(height, width, backbone.native_size, backbone.multiple)
            fitted = refit(concepts, picture, size)
            job = Job(
                backbone, picture, fitted, training, refinement, preview_every, asked, showing_for(demo)
            )
            result = run(job, kept_in, resume)
        lora = ExecutionBlocker(None) if result.lora is None else lora_state_dict(result.lora)
        sheet = image_of(result.sheet)
        return io.NodeOutput(
            PicturedConcepts.of(result.saved),
            lora,
            {"loss": list(result.losses)},
            sheet,
            image_of(reading_table(fitted.image, fitted.concepts, result.readings)),
            ui=ui.PreviewImage(sheet, cls=cls),
        )
