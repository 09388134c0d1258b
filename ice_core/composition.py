"""Prompts from learned concepts: those that show a result, and those that mix several."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ice_core.concepts import LearnedConcept, LearnedConcepts, as_people_write, check_fits
from ice_core.errors import IceError
from ice_core.model.backbone import Backbone, Prompt, Token

SWATCH = "ball"
"""What a property is shown on when nothing else is asked for, as materials are shown everywhere."""


def described(concept: LearnedConcept) -> tuple[Token, ...]:
    """The properties in order, then the object: "a photo of a {vase.color} {vase.material} {vase.object}"."""
    return (*concept.properties, concept.object)


def whole(concept: LearnedConcept) -> tuple[Token, ...]:
    """All that was learned of an object: its instance token, where it has one, and it `described`."""
    return (*((concept.instance,) if concept.instance is not None else ()), *described(concept))


def shorthand(concept: LearnedConcept) -> Token:
    """The `whole` object as one token of the object's key, "{vase}": rows [n, D] per encoder, in order."""
    parts = whole(concept)
    rows = {name: torch.cat([part.rows[name] for part in parts]) for name in concept.object.rows}
    return Token(concept.key, rows)


def placeholders(*concepts: LearnedConcept) -> dict[str, Token]:
    """What a prompt may name of them -> its token: `<key>`, `<key>.<object | instance | axis>`."""
    names: dict[str, Token] = {}
    for concept in concepts:
        names |= {concept.key: shorthand(concept), **concept.tokens}
    return names


def token_table(sources: Mapping[str, LearnedConcepts | Token]) -> dict[str, Token]:
    """Every placeholder that a prompt may name -> its token.

    Concepts under an alias give `<alias>.<key>` for a whole object and `<alias>.<key>.<object | instance |
    axis>` for a part of it, a single token `<alias>`. When there is one source only, or its alias is "", the
    alias may be left out. A single token goes before an object of the same name.
    """
    table: dict[str, Token] = {}
    single: dict[str, Token] = {}
    for alias, source in sources.items():
        if isinstance(source, Token):
            single[alias or source.name] = source
            continue
        names = placeholders(*source.concepts)
        if alias:
            table |= {f"{alias}.{name}": token for name, token in names.items()}
        if not alias or len(sources) == 1:
            table |= names
    return table | single


def parse_prompt(text: str, sources: Mapping[str, LearnedConcepts | Token], backbone: Backbone) -> Prompt:
    """ "a photo of a {b.cube.color} {a.ball.object}" -> a prompt for this backbone.

    Raises IceError for an empty prompt, a placeholder that no source has (naming those that exist), or
    tokens that were made for a model of another kind.
    """
    if not text.strip():
        raise IceError('the prompt is empty; write for example "a photo of a {ball}"')
    for source in sources.values():
        check_fits(source, backbone)
    return Prompt.parse(text, token_table(sources))


def showcase_prompts(concept: LearnedConcept) -> list[tuple[str, Prompt]]:
    """Captions and prompts that show what was learned: the whole object, its kind, each property."""
    axes = as_people_write(tuple(concept.intrinsics))
    return [
        ("whole object", Prompt(("a photo of a", shorthand(concept)))),
        ("object token", Prompt(("a", concept.object))),
        *((axis, Prompt(("a photo of a", concept.intrinsics[axis], SWATCH))) for axis in axes),
    ]


def recomposed(giver: LearnedConcept, thing: Token | str) -> Prompt:
    """All properties of one object on another thing: "a photo of a {ball.color} {ball.material} cube"."""
    return Prompt(("a photo of a", *giver.properties, thing))


def written(prompt: Prompt) -> str:
    """A prompt as `ice compose` takes it: "a photo of a {ball.color} {cube.object}"; a `shorthand` stays
    one."""
    return " ".join(part if isinstance(part, str) else f"{{{part.name}}}" for part in prompt.parts)
