"""Prompts from learned concepts of one or several pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fakes import WIDTH, FakeBackbone

from ice_core.composition import (
    described,
    parse_prompt,
    shorthand,
    showcase_prompts,
    token_table,
    whole,
    written,
)
from ice_core.concepts import LearnedConcept, LearnedConcepts
from ice_core.errors import IceError
from ice_core.model.backbone import Prompt, Token


def learned(
    key: str, width: int = WIDTH, axes: tuple[str, ...] = ("color", "material"), rows: int = 1
) -> LearnedConcepts:
    def token(role: str) -> Token:
        return Token(f"{key}.{role}", {"clip_l": torch.full((rows, width), float(len(role)))})

    concept = LearnedConcept(
        key, key, token("instance"), token("object"), {axis: token(axis) for axis in axes}
    )
    return LearnedConcepts((concept,), axes, "fake", "f" * 64, "stable-diffusion-v1", 0, 10)


def test_tokens_of_several_pictures_are_told_apart_by_alias() -> None:
    sources = {"a": learned("ball"), "b": learned("cube")}
    prompt = parse_prompt("a photo of {a.ball.object} {b.cube.color}", sources, FakeBackbone())
    assert prompt.parts[0] == "a photo of"
    assert [p.name for p in prompt.parts[1:] if isinstance(p, Token)] == ["ball.object", "cube.color"]
    assert "ball.object" not in token_table(sources)


def test_two_pictures_may_use_the_same_key() -> None:
    table = token_table({"a": learned("ball"), "b": learned("ball", WIDTH)})
    assert table["a.ball.color"] is not table["b.ball.color"]


@pytest.mark.parametrize("alias", ["", "a"])
def test_with_one_picture_the_alias_may_be_left_out(alias: str) -> None:
    prompt = parse_prompt("{ball.object}", {alias: learned("ball")}, FakeBackbone())
    assert written(prompt) == "{ball.object}"


def test_a_single_token_goes_by_its_alias_or_its_name() -> None:
    style = Token("style", {"clip_l": torch.ones(2, WIDTH)})
    assert token_table({"x": style}) == {"x": style}
    assert token_table({"": style}) == {"style": style}


def test_an_unknown_placeholder_lists_the_existing_names() -> None:
    known = r"\{a\.ring\.size\}, which was not learned.*\{a\.ball\}.*\{a\.ball\.color\}.*\{b\.cube\}"
    with pytest.raises(IceError, match=known):
        parse_prompt("{a.ring.size}", {"a": learned("ball"), "b": learned("cube")}, FakeBackbone())


def test_capital_letters_of_a_placeholder_are_forgiven() -> None:
    prompt = parse_prompt("{A.Ball.Color}", {"a": learned("ball")}, FakeBackbone())
    assert written(prompt) == "{ball.color}"


def test_weights_and_choices_in_braces_are_told_how_they_are_written() -> None:
    for text, message in (("{ball:1.3}", r"\(\{ball\}:1\.3\)"), ("{red|blue}", "a choice of words")):
        with pytest.raises(IceError, match=message):
            parse_prompt(text, {"": learned("ball")}, FakeBackbone())


def test_a_property_that_an_object_lacks_lists_those_that_it_has() -> None:
    sources = {"a": learned("ball", axes=("color",)), "b": learned("cube")}
    with pytest.raises(IceError, match="could not be read of this object") as caught:
        parse_prompt("a {a.ball.material} {b.cube.object}", sources, FakeBackbone())
    assert str(caught.value).endswith(
        "there are: {a.ball}, {a.ball.instance}, {a.ball.object}, {a.ball.color}"
    )


@pytest.mark.parametrize("text", ["", "   ", "{ball.object", "ball.object}"])
def test_empty_and_unbalanced_prompts_are_refused(text: str) -> None:
    with pytest.raises(IceError):
        parse_prompt(text, {"": learned("ball")}, FakeBackbone())


def test_tokens_of_another_kind_of_model_are_refused() -> None:
    with pytest.raises(IceError, match="made for fake"):
        parse_prompt("{ball.object}", {"": learned("ball", 768)}, FakeBackbone())


def test_the_showcase_holds_the_whole_the_kind_and_each_property() -> None:
    concept = learned("ball").concepts[0]
    assert [(caption, written(prompt)) for caption, prompt in showcase_prompts(concept)] == [
        ("whole object", "a photo of a {ball}"),
        ("object token", "a {ball.object}"),
        ("color", "a photo of a {ball.color} ball"),
        ("material", "a photo of a {ball.material} ball"),
    ]


def names(tokens: tuple[Token, ...]) -> list[str]:
    return [token.name.removeprefix("vase.") for token in tokens]


def test_properties_come_before_the_thing_in_the_order_that_people_write() -> None:
    axes = ("material", "color", "finish", "texture", "pattern", "shape", "age", "size", "style")
    concept = learned("vase", axes=axes).concepts[0]
    ordered = ["finish", "age", "style", "size", "shape", "pattern", "texture", "color", "material", "object"]
    assert names(described(concept)) == ordered
    assert names(whole(concept)) == ["instance", *ordered]
    assert [caption for caption, _ in showcase_prompts(concept)] == [
        "whole object", "object token", *ordered[:-1]
    ]  # fmt: skip


@pytest.mark.parametrize("rows", [1, 2])
def test_the_shorthand_means_all_tokens_of_the_object(rows: int) -> None:
    source = learned("vase", rows=rows)
    concept, backbone = source.concepts[0], FakeBackbone()
    for text, sources in (
        ("a {vase} on sand", {"": source}),
        ("a {a.vase} on sand", {"a": source, "b": learned("cube")}),
    ):
        short = parse_prompt(text, sources, backbone)
        assert written(short) == "a {vase} on sand"
        assert short.text == "a embedding:vase on sand"
        encoded = backbone.encode_prompts([short, Prompt(("a", *whole(concept), "on sand"))])
        assert torch.equal(encoded.context[0], encoded.context[1])


def test_an_object_without_an_instance_token_is_described_by_the_rest() -> None:
    concept = replace(learned("vase", axes=("color",)).concepts[0], instance=None)
    assert names(whole(concept)) == ["color", "object"]
    assert shorthand(concept).rows["clip_l"][:, 0].tolist() == [len("color"), len("object")]
    source = replace(learned("vase", axes=("color",)), concepts=(concept,))
    with pytest.raises(IceError, match=r"there are: \{vase\}, \{vase\.object\}, \{vase\.color\}$"):
        parse_prompt("a {vase.instance}", {"": source}, FakeBackbone())


def test_a_token_that_was_given_a_name_goes_before_an_object_of_that_name() -> None:
    style = Token("style", {"clip_l": torch.ones(2, WIDTH)})
    table = token_table({"ball": style, "": learned("ball")})
    assert table["ball"] is style
    assert table["ball.color"].name == "ball.color"
