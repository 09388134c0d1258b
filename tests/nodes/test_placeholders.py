"""What the page is told while a prompt is typed."""

from __future__ import annotations

from typing import Any

from nodes.placeholders import answer, thumbnails

LOADER = {"class_type": "ICELoadConcepts", "inputs": {"folder": "embeddings/ice/vase"}}


def on_disk(folder: str) -> tuple[str, ...]:
    return ("vase", "vase.object", "vase.color")


def graph(**inputs: Any) -> dict[str, Any]:
    return {"1": LOADER, "2": {"class_type": "ICEConceptComposer", "inputs": inputs}}


def test_names_of_one_input_go_without_its_letter_and_a_right_prompt_has_no_problem() -> None:
    told = answer(graph(a=["1", 0]), "2", "a {vase.color} cup", on_disk)
    assert told == {"names": ["vase", "vase.object", "vase.color"], "problem": None}


def test_names_of_several_inputs_have_their_letters() -> None:
    told = answer(graph(a=["1", 0], b=["1", 0]), "2", "a cup", on_disk)
    assert told["names"][:4] == ["a.vase", "a.vase.object", "a.vase.color", "b.vase"]


def test_a_wrong_placeholder_is_told() -> None:
    assert "{teapot}" in answer(graph(a=["1", 0]), "2", "a {teapot}", on_disk)["problem"]
    assert "nothing is connected to b" in answer(graph(a=["1", 0]), "2", "a {b.vase}", on_disk)["problem"]


def test_another_node_has_no_names() -> None:
    assert answer(graph(a=["1", 0]), "1", "a cup", on_disk) == {"names": [], "problem": None}


def test_concepts_on_the_disk_come_with_the_address_of_their_pictures() -> None:
    one = thumbnails(graph(a=["1", 0]), "2", on_disk)
    assert one["vase.color"] == "/ice/thumbnail?folder=embeddings%2Fice%2Fvase&name=vase.color"
    two = thumbnails(graph(a=["1", 0], c=["1", 0]), "2", on_disk)
    assert two["c.vase"].endswith("name=vase")
    assert thumbnails(graph(a=["7", 0]), "2", on_disk) == {}
