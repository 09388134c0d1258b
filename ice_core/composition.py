"""Prompts from learned concepts: those that show a result, and those that mix several."""

from __future__ import annotations

from collections.abc import Mapping

from ice_core.concepts import LearnedConcept, LearnedConcepts, check_fits
from ice_core.errors import IceError
from ice_core.model.backbone import Backbone, Prompt, Token


def token_table(sources: Mapping[str, LearnedConcepts | Token]) -> dict[str, Token]:
    """Every placeholder that a prompt may name -> its token.

    Concepts under an alias give `<alias>.<key>.<object | instance | axis>`, a single token `<alias>`. When
    there is one source only, or its alias is "", the alias may be left out.
    """
    table: dict[str, Token] = {}
    for alias, source in sources.items():
        if isinstance(source, Token):
            table[alias or source.name] = source
            continue
        if alias:
            table |= {f"{alias}.{name}": token for name, token in source.tokens.items()}
        if not alias or len(sources) == 1:
            table |= source.tokens
    return table


def parse_prompt(text: str, sources: Mapping[str, LearnedConcepts | Token], backbone: Backbone) -> Prompt:
    """ "a photo of {a.ball.object} {b.cube.color}" -> a prompt for this backbone.

    Raises IceError for an empty prompt, a placeholder that no source has (naming those that exist), or
    tokens that were made for a model of another kind.
    """
    if not text.strip():
        raise IceError('the prompt is empty; write for example "a photo of {ball.object}"')
    for source in sources.values():
        check_fits(source, backbone)
    return Prompt.parse(text, token_table(sources))


def showcase_prompts(concept: LearnedConcept) -> list[tuple[str, Prompt]]:
    """Captions and prompts that show what was learned: the whole object, its kind, each property."""
    intrinsics = concept.intrinsics
    return [
        ("whole object", Prompt(("a photo of", concept.object, *intrinsics.values()))),
        ("object token", Prompt(("a", concept.object))),
        *((axis, Prompt(("a", token, axis))) for axis, token in intrinsics.items()),
    ]


def recomposed(giver: LearnedConcept, thing: Token | str) -> Prompt:
    """All properties of one object on another thing: "a photo of a {ball.color} {ball.material} cube"."""
    return Prompt(("a photo of a", *giver.properties, thing))


def written(prompt: Prompt) -> str:
    """A prompt as `ice compose` takes it: "a photo of {ball.object}"."""
    return " ".join(part if isinstance(part, str) else f"{{{part.name}}}" for part in prompt.parts)
