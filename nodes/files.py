"""The nodes that save learned concepts, and load them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from comfy_api.latest import io, ui
from torch import Tensor

from ice_core.concepts import LearnedConcepts
from ice_core.errors import IceError
from ice_core.files.paths import safe_path

from . import places
from .graph import missing_lora, submitted_inputs
from .shelf import SHELF
from .types import Learned, schema
from .values import say

_NO_LORA = (
    "`lora` comes from a training with refine_steps 0, which makes none: disconnect it, or set refine_steps"
)


class SaveConcepts(io.ComfyNode):
    """Textual-inversion files, the concept set with all of them, and the LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ICESaveConcepts",
            display_name="ICE Save Concepts",
            description="Saves learned concepts as embeddings that every prompt can use, and their LoRA.",
            search_aliases=["save embedding", "textual inversion", "export concepts", "save lora"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                Learned.Input("learned", tooltip="From the ICE Intrinsic Trainer."),
                io.String.Input(
                    "folder",
                    default="ice/concept",
                    tooltip="Subfolder to save into, without spaces or commas, since it is typed in prompts. "
                    "Each save gets a folder of its own: when there is one of this name already, "
                    "ice/concept-2 is taken, and so on.",
                ),
                io.Combo.Input(
                    "destination",
                    options=[places.EMBEDDINGS, places.OUTPUT],
                    default=places.EMBEDDINGS,
                    tooltip="'embeddings' and its sister 'loras' are where prompts and LoRA loaders look. In "
                    "'output', ICE Load Concepts lists what is below the folder ice.",
                ),
                io.LoraModel.Input(
                    "lora", optional=True, tooltip="From a training with refinement: saved as well."
                ),
                io.Boolean.Input(
                    "library",
                    default=False,
                    optional=True,
                    tooltip="Also keep the concepts in the library, which the page's panel shows and which "
                    "ICE Library Concept takes them from.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="names",
                    tooltip="What to type in a prompt, one `embedding:` name per line, each whole object "
                    "before its tokens (the files' paths when saved to the output folder).",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None) -> bool | str:
        """Refuse before the queue runs a name that leaves the folder, and a LoRA that will not come."""
        try:
            if folder is not None:
                safe_path(Path(), _tidy(folder))
        except IceError as error:
            return str(error)
        if missing_lora(submitted_inputs(cls.hidden.unique_id, "ICESaveConcepts").get("lora")):
            return _NO_LORA
        return True

    @classmethod
    def execute(
        cls,
        learned: LearnedConcepts,
        folder: str,
        destination: str,
        lora: Mapping[str, Tensor] | None = None,
        library: bool = False,
    ) -> io.NodeOutput:
        from ice_core.files.concept_set import ENDING, save_concept_set
        from ice_core.files.embeddings import save_concepts
        from ice_core.files.images import as_data_uri
        from ice_core.files.lora import save_lora

        root, lora_root = _roots(destination)
        folder = places.unused(_tidy(folder), root, lora_root)
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        every = replace(places.all_of(learned), date=date)
        thumbnails = {name: as_data_uri(picture) for name, picture in every.thumbnails.items()}
        paths = list(save_concepts(learned, safe_path(root, folder), date, thumbnails).values())
        written = save_concept_set(every, safe_path(root, f"{folder}/{ENDING}"))
        if destination == places.EMBEDDINGS:
            names = [places.embedding_name(path, root) for path in paths]
        else:
            names = [path.relative_to(root).as_posix() for path in paths]
        shown = [*names, f"concept set: {written.relative_to(root).as_posix()}"]
        if lora is not None:
            file = (
                f"{folder}.safetensors" if destination == places.EMBEDDINGS else f"{folder}/lora.safetensors"
            )
            written = save_lora(lora, safe_path(lora_root, file), learned, date)
            shown.append(f"LoRA: {written.relative_to(lora_root).as_posix()}")
        if library:
            kept = SHELF.keep(every, f"ComfyUI, {folder}")
            shown.append(f"library: {', '.join(f'#{number}' for number in kept)}")
        say("\n".join(shown))
        return io.NodeOutput("\n".join(names), ui=ui.PreviewText("\n".join(shown)))


class LoadConcepts(io.ComfyNode):
    """Learned concepts from their files, or from a concept set."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="ICELoadConcepts",
            display_name="ICE Load Concepts",
            description="Loads concepts that ICE Save Concepts, a cancelled training or `ice extract` left "
            "on disk.",
            search_aliases=["load embedding", "textual inversion", "import concepts"],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=sorted(places.saved()),
                    tooltip="Folders with saved concepts, and concept sets (files whose names end with "
                    "concepts.safetensors), below the embeddings folders and output/ice. Press R to list "
                    "them again.",
                )
            ],
            outputs=[
                Learned.Output(display_name="learned", tooltip="For the ICE Concept Composer."),
                io.String.Output(
                    display_name="names",
                    tooltip="What a prompt may name, one per line: whole objects, and their tokens.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str | None) -> str:
        """Changes when a file of the folder does, or the concept set."""
        path = places.saved().get(folder or "")
        if path is None:
            return ""
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        return repr([(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files])

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        from ice_core.composition import placeholders

        learned = places.load(folder)
        names = "\n".join(placeholders(*learned.concepts))
        say(names)
        return io.NodeOutput(learned, names, ui=ui.PreviewText(names))


def _tidy(folder: str) -> str:
    return folder.strip().strip("/\\")


def _roots(destination: str) -> tuple[Path, Path]:
    """Where embeddings and LoRAs go."""
    import folder_paths

    if destination == places.OUTPUT:
        return (Path(folder_paths.get_output_directory()),) * 2
    return (
        Path(folder_paths.get_folder_paths("embeddings")[0]),
        Path(folder_paths.get_folder_paths("loras")[0]),
    )
