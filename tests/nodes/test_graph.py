"""What is refused before the queue runs, and what is let pass because it could be right."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

import pytest

from ice_core.errors import IceError
from nodes.graph import (
    EVERY,
    MASKS,
    ONE_PASS,
    Name,
    check_prompt,
    learned_names,
    missing_lora,
    remember,
    submitted_inputs,
)

FOLDERS = {"embeddings/ice/vase": ("vase", "vase.instance", "vase.object", "vase.color")}


def on_disk(folder: str) -> tuple[str, ...]:
    if folder not in FOLDERS:
        raise IceError("there is no such folder")
    return FOLDERS[folder]


def graph(mode: str = EVERY, labels: Any = "", axes: Any = "color, material") -> dict[str, Any]:
    return {
        "1": {"class_type": "ICEAttentionSegmentor", "inputs": {"mode": mode, "labels": labels}},
        "2": {
            "class_type": "ICEIntrinsicTrainer",
            "inputs": {"concepts": ["1", 0], "axes": axes, "refine_steps": 0},
        },
        "3": {"class_type": "ICELoadConcepts", "inputs": {"folder": "embeddings/ice/vase"}},
        "4": {"class_type": "SomethingElse", "inputs": {}},
    }


def names(link: Any, of: dict[str, Any]) -> tuple[Name, ...] | None:
    return learned_names(link, on_disk, of)


def accepted(prompt: str, **sources: tuple[Name, ...] | None) -> bool:
    try:
        check_prompt(prompt, sources)
    except IceError:
        return False
    return True


def test_names_on_disk_are_known_exactly() -> None:
    known = names(["3", 0], graph())
    assert accepted("a {a.vase.color} cup", a=known)
    assert accepted("a {vase.color} cup", a=known)
    assert not accepted("a {a.vase.material} cup", a=known)
    assert not accepted("a {a.bowl.color} cup", a=known)


def test_whole_objects_go_by_their_name_alone() -> None:
    saved, found = names(["3", 0], graph()), names(["2", 0], graph(EVERY))
    given, word = names(["2", 0], graph(MASKS, "ball, ball")), names(["2", 0], graph(ONE_PASS, "ball"))
    assert accepted("{a.vase} {b.anything-2} {c.ball-2} {d.ball-7}", a=saved, b=found, c=given, d=word)
    assert accepted("{vase}", a=saved)
    assert accepted("{e.-coli}", a=found)
    for prompt in ("{a.bowl}", "{c.ball-3}", "{d.cube}", "{e.vase}", "{vase}"):
        assert not accepted(prompt, a=saved, b=found, c=given, d=word)


def test_a_property_that_a_saved_object_lacks_is_told_from_an_object_that_is_not_there() -> None:
    known = names(["3", 0], graph())
    with pytest.raises(IceError, match="'material' could not be read of this object"):
        check_prompt("a {a.vase.material}", {"a": known})
    with pytest.raises(IceError, match=r"\{a\.bowl\.color\}; there are: \{a\.vase\}, "):
        check_prompt("a {a.bowl.color}", {"a": known})


def test_a_missing_folder_is_left_to_the_loader() -> None:
    changed = graph()
    changed["3"]["inputs"]["folder"] = "embeddings/gone"
    assert names(["3", 0], changed) is None


def test_before_training_the_axes_are_known_and_the_objects_are_not() -> None:
    known = names(["2", 0], graph(EVERY))
    assert accepted("a {a.anything.color} {a.ball-2.object} {a.x.instance}", a=known)
    assert accepted("a {e.-coli.color} {mr.-bean.object}", a=known)
    assert not accepted("a {a.ball.texture}", a=known)
    assert not accepted("a {b.ball.color}", a=known)


def with_words(source: Any = "bundled demo CLIP", vocabulary: Any = "") -> dict[str, Any]:
    made = graph(EVERY)
    made["1"]["inputs"]["words"] = ["5", 0]
    inputs = {"source": source, "vocabulary": vocabulary}
    return made | {"5": {"class_type": "ICEConceptRetriever", "inputs": inputs}}


def test_found_objects_are_named_by_words_of_the_vocabulary_alone() -> None:
    known = names(["2", 0], with_words())
    assert accepted("{a.cone.color} {a.cube-2.object} {a.object}", a=known)
    with pytest.raises(IceError, match=r"\{a\.teapot\.object\}; there are: .*\{a\.cone\}.*\.color"):
        check_prompt("a {a.teapot.object}", {"a": known})


def test_near_words_of_a_long_vocabulary_are_named() -> None:
    known = names(["2", 0], with_words("open_clip model"))
    assert accepted("{a.teapot.color} {a.vase}", a=known)
    with pytest.raises(IceError, match=r"words of the vocabulary, such as .*\{vase\}"):
        check_prompt("a {a.vasee.color}", {"a": known})


def test_ones_own_vocabulary_is_what_objects_are_named_by() -> None:
    known = names(["2", 0], with_words("open_clip model", "wine glass, vase"))
    assert accepted("{a.wine-glass.color} {a.vase-3}", a=known)
    assert not accepted("{a.teapot.color}", a=known)


@pytest.mark.parametrize(
    ("source", "vocabulary"), [(["9", 0], ""), ("open_clip model", ["9", 0]), ("x", ",")]
)
def test_a_vocabulary_that_is_not_known_lets_every_name_pass(source: Any, vocabulary: Any) -> None:
    assert accepted("{a.anything.color}", a=names(["2", 0], with_words(source, vocabulary)))


def test_capital_letters_do_not_count() -> None:
    assert accepted("{a.Vase.Color} {A.VASE}", a=names(["3", 0], graph()))
    assert accepted("{a.Cone.Object}", a=names(["2", 0], with_words()))


def test_an_input_that_is_not_connected_is_named() -> None:
    with pytest.raises(IceError, match=r"\{b\.vase\.color\}, but nothing is connected to b; there are: "):
        check_prompt("a {b.vase.color} cup", {"a": names(["3", 0], graph())})


def test_weights_and_choices_within_braces_are_answered_with_how_they_are_written() -> None:
    known = names(["3", 0], graph())
    with pytest.raises(IceError, match=r"write \(\{vase\.object\}:1\.3\)"):
        check_prompt("a {vase.object:1.3}", {"a": known})
    with pytest.raises(IceError, match=r"\{red\|blue\} is a choice of words"):
        check_prompt("a {red|blue} {vase}", {"a": known})
    assert accepted("a ({vase.object}:1.3)", a=known)


def test_objects_given_with_masks_are_known_exactly() -> None:
    known = names(["2", 0], graph(MASKS, "ball, Ball\nwine glass"))
    assert accepted("{a.ball.object} {a.ball-2.color} {a.wine-glass.material}", a=known)
    assert not accepted("{a.ball-3.object}", a=known)
    assert not accepted("{a.cube.object}", a=known)


def test_a_given_word_may_be_found_several_times() -> None:
    known = names(["2", 0], graph(ONE_PASS, "ball"))
    assert accepted("{a.ball.object} {a.ball-7.color}", a=known)
    assert not accepted("{a.cube.object}", a=known)


@pytest.mark.parametrize("labels", ["", ["9", 0]])
@pytest.mark.parametrize("mode", [MASKS, ONE_PASS])
def test_words_that_come_from_elsewhere_may_be_any(mode: str, labels: Any) -> None:
    assert accepted("{a.teapot.color}", a=names(["2", 0], graph(mode, labels)))


def test_concepts_of_a_node_that_is_not_ours_are_let_pass() -> None:
    assert names(["4", 0], graph()) is None
    assert accepted("{a.b.c}", a=None)
    assert accepted("{b.c}", a=None)


def test_linked_axes_are_let_pass() -> None:
    assert names(["2", 0], graph(axes=["9", 0])) is None


@pytest.mark.parametrize("link", [None, "2", ["2"], ["2", 1], ["77", 0], [["2"], 0]])
def test_links_that_say_nothing_are_let_pass(link: Any) -> None:
    assert names(link, graph()) is None


def test_with_several_sources_the_alias_is_needed() -> None:
    known = names(["3", 0], graph())
    assert accepted("{a.vase.color} {b.vase.object}", a=known, b=known)
    assert not accepted("{vase.color}", a=known, b=known)
    assert not accepted("{c.vase.color}", a=known, b=known)


def test_the_refusal_names_what_there_is() -> None:
    sources = {"a": names(["3", 0], graph()), "b": names(["2", 0], graph()), "c": None}
    with pytest.raises(IceError) as caught:
        check_prompt("a {a.vase.colour}", sources)
    for shown in (
        "{a.vase.colour}",
        "{a.vase.color}",
        "{b.<object>}",
        "{b.<object>.material}",
        "{c.<object>}",
        "{c.<object>.<object or axis>}",
    ):
        assert shown in str(caught.value)


def test_placeholders_without_any_concepts_are_refused_and_plain_words_are_not() -> None:
    assert accepted("a red ball")
    with pytest.raises(IceError, match="connect them to a, b"):
        check_prompt("a {ball.color} ball", {})


@pytest.mark.parametrize("prompt", ["", "  \n", "a {ball.color", "a ball.color}", "a {{ball.color}}"])
def test_empty_prompts_and_loose_braces_are_refused(prompt: str) -> None:
    assert not accepted(prompt, a=None)


def test_a_lora_of_a_training_without_refinement_will_not_come() -> None:
    given = graph()
    assert missing_lora(["2", 1], given)
    given["2"]["inputs"]["refine_steps"] = 20
    assert not missing_lora(["2", 1], given)
    assert not missing_lora(["4", 1], given)
    assert not missing_lora(None, given)


def test_each_request_sees_its_own_graph_and_is_passed_on_as_it_is() -> None:
    def submit(mode: str) -> Any:
        request = {"prompt": graph(mode)}
        assert remember(request) is request
        return submitted_inputs("1", "ICEAttentionSegmentor")["mode"]

    assert copy_context().run(submit, EVERY) == EVERY
    assert copy_context().run(submit, MASKS) == MASKS
    assert submitted_inputs("1", "ICEAttentionSegmentor") == {}


@pytest.mark.parametrize("request_", [{}, {"prompt": None}, {"prompt": []}, {"prompt": {"1": 3}}])
def test_malformed_requests_are_nobodys_business_here(request_: dict[str, Any]) -> None:
    def submit() -> Any:
        remember(request_)
        return submitted_inputs("1", "ICEAttentionSegmentor")

    assert copy_context().run(submit) == {}
