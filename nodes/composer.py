"""The node that writes prompts with learned concepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ice_core.concepts import LearnedConcepts
from ice_core.errors import IceError
from ice_core.model.backbone import Prompt, Token

from .graph import ALIASES, COMPOSER, check_prompt, learned_names, submitted_inputs
from .places import LoadedConcepts, names_in
from .shelf import names_in_library
from .types import Learned, schema
from .values import say


class ConceptComposer(io.ComfyNode):
    """A prompt with placeholders for learned tokens, encoded."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id=COMPOSER,
            display_name="ICE Concept Composer",
            description="Encodes a prompt that mixes words with learned concepts, also of several pictures.",
            search_aliases=["prompt", "clip text encode", "mix concepts", "compose", "embedding prompt"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Clip.Input(
                    "clip", tooltip="The CLIP of the checkpoint that the concepts were learned with."
                ),
                io.String.Input(
                    "prompt",
                    default="a photo of a {a.ball}",
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="Words, and what was learned. {a.ball} is the whole object ball of input a, "
                    "{a.ball.color} one property of it: an axis, object (the kind of thing) or instance "
                    "(this very one). Properties come before the thing: {a.ball.color} {b.cube.object}. With "
                    "one input connected its letter may be left out: {ball}. Weights such as (red:1.2) work.",
                ),
                *(
                    Learned.Input(
                        alias,
                        optional=True,
                        tooltip=f"Learned concepts, in the prompt {{{alias}.<object>}} and "
                        f"{{{alias}.<object>.<axis>}}.",
                    )
                    for alias in ALIASES
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="conditioning"),
                io.String.Output(
                    display_name="text",
                    tooltip="The prompt with `embedding:` names, for CLIP Text Encode and other tools, once "
                    "the concepts are saved. Concepts of ICE Load Concepts get their folder, others the "
                    "file's name alone.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, prompt: str | None) -> bool | str:
        """Refuse a wrong placeholder before the queue runs, as far as the graph tells what there is."""
        if prompt is None:
            return True
        inputs = submitted_inputs(cls.hidden.unique_id, COMPOSER)
        if inputs.get("prompt") != prompt:
            return True
        sources = {
            alias: learned_names(inputs[alias], names_in, in_library=names_in_library)
            for alias in ALIASES
            if alias in inputs
        }
        try:
            check_prompt(prompt, sources)
        except IceError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, clip: Any, prompt: str, **learned: LearnedConcepts | None) -> io.NodeOutput:
        from ice_core.composition import token_table

        from .host.conditioning import check_tokens, encode_conditioning

        sources: dict[str, LearnedConcepts | Token] = {
            alias: given for alias in ALIASES if (given := learned.get(alias)) is not None
        }
        if not prompt.strip():
            raise IceError('the prompt is empty: write for example "a photo of a {ball}"')
        for source in sources.values():
            if isinstance(source, Token):
                check_tokens(clip, [source])
            else:
                origin = f"{source.architecture}, {source.base_name}"
                check_tokens(clip, source.tokens.values(), origin)
        table = token_table(sources)
        folders = {
            id(token): source.folder
            for alias, source in sources.items()
            if isinstance(source, LoadedConcepts)
            for name, token in table.items()
            if name.startswith(f"{alias}.")
        }
        parsed = Prompt.parse(prompt, table)
        say(text := _written(parsed, folders))
        return io.NodeOutput(encode_conditioning(clip, parsed), text)


def _written(prompt: Prompt, folders: Mapping[int, str]) -> str:
    """The prompt with `embedding:` names, with the folder of those that were loaded from one, by their id."""
    parts = []
    for part in prompt.parts:
        if isinstance(part, str):
            parts.append(part)
        else:
            folder = folders.get(id(part), "")
            parts.append(f"embedding:{f'{folder}/' if folder else ''}{part.name.replace('.', '_')}")
    return " ".join(parts)
