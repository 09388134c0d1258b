"""What the pictures of the example workflows show."""

from __future__ import annotations

from tools.workflow_results import finding, with_demo_model

GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "some.safetensors"}},
    "2": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
    "3": {
        "class_type": "ICEAttentionSegmentor",
        "inputs": {"model": ["1", 0], "image": ["2", 0], "mode": "given masks", "labels": "vase"},
    },
    "4": {"class_type": "ICEIntrinsicTrainer", "inputs": {"concepts": ["3", 0]}},
}


def test_the_bundled_model_and_its_words_stand_for_a_checkpoint() -> None:
    made = with_demo_model(GRAPH)
    assert made["1"] == {"class_type": "ICEDemoModel", "inputs": {}}
    assert made["3"]["inputs"]["labels"] == "cone"
    assert GRAPH["1"]["class_type"] == "CheckpointLoaderSimple"


def test_finding_is_what_leads_to_the_objects_and_a_look_at_them() -> None:
    part = finding(GRAPH)
    assert set(part) == {"1", "2", "3", "look"}
    assert part["look"]["inputs"]["images"] == ["3", 3]


def test_things_that_the_bundled_model_cannot_draw_are_others_in_the_prompt() -> None:
    prompt = {"prompt": "a photo of a {a.cup.material} chair"}
    made = with_demo_model({"1": {"class_type": "ICEConceptComposer", "inputs": prompt}})
    assert made["1"]["inputs"]["prompt"] == "a photo of a {a.cone.material} cube"
