"""The node that writes prompts with learned concepts."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ice_core.concepts import LearnedConcepts
from ice_core.errors import IceError
from ice_core.model.backbone import Prompt, Token

from .graph import COMPOSER, check_prompt, learned_names, submitted_inputs
from .places import LoadedConcepts, token_names
from .types import Learned, schema

ALIASES = ("a", "b", "c", "d", "e", "f", "g", "h")


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
                    default="a photo of a {a.ball.object} {a.ball.color}",
                    multiline=True,
                    dynamic_prompts=False,
                    tooltip="Words, and learned tokens as {a.ball.object} or {b.cube.color}: the input, the "
                    "object's name, and object, instance or an axis. With one input connected its letter "
                    "may be left out: {ball.object}. Weights such as (red:1.2) work.",
                ),
                *(
                    Learned.Input(
                        alias,
                        optional=True,
                        tooltip=f"Learned concepts, called {{{alias}.<object>.<axis>}} in the prompt.",
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
        sources = {alias: learned_names(inputs[alias], token_names) for alias in ALIASES if alias in inputs}
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
            raise IceError('the prompt is empty: write for example "a photo of {ball.object}"')
        for source in sources.values():
            if isinstance(source, Token):
                check_tokens(clip, [source])
            else:
                origin = f"{source.architecture}, {source.base_name}"
                check_tokens(clip, source.tokens.values(), origin)
        parsed = Prompt.parse(prompt, token_table(sources))
        return io.NodeOutput(encode_conditioning(clip, parsed), _written(parsed, sources))


def _written(prompt: Prompt, sources: dict[str, LearnedConcepts | Token]) -> str:
    """The prompt with `embedding:` names, with the folder of those that were loaded from one."""
    folders = {
        id(token): source.folder
        for source in sources.values()
        if isinstance(source, LoadedConcepts)
        for token in source.tokens.values()
    }
    parts = []
    for part in prompt.parts:
        if isinstance(part, str):
            parts.append(part)
        else:
            folder = folders.get(id(part), "")
            parts.append(f"embedding:{f'{folder}/' if folder else ''}{part.name.replace('.', '_')}")
    return " ".join(parts)
