"""Prompts from learned concepts of one or several pictures."""

from __future__ import annotations

import pytest
import torch
from fakes import WIDTH, FakeBackbone

from ice_core.composition import parse_prompt, showcase_prompts, token_table, written
from ice_core.concepts import LearnedConcept, LearnedConcepts
from ice_core.errors import IceError
from ice_core.model.backbone import Token


def learned(key: str, width: int = WIDTH) -> LearnedConcepts:
    def token(role: str) -> Token:
        return Token(f"{key}.{role}", {"clip_l": torch.ones(1, width)})

    axes = ("color", "material")
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
    with pytest.raises(IceError, match=r"a\.ball\.size.*\{a\.ball\.object\}.*\{a\.ball\.color\}"):
        parse_prompt("{a.ball.size}", {"a": learned("ball"), "b": learned("cube")}, FakeBackbone())


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
        ("whole object", "a photo of {ball.object} {ball.color} {ball.material}"),
        ("object token", "a {ball.object}"),
        ("color", "a {ball.color} color"),
        ("material", "a {ball.material} material"),
    ]
