"""How the demo workflow's pictures are counted."""

from __future__ import annotations

import torch
from demo_composition import agreements, summary, wanted_of, with_seed

from ice_core.world.scenes import sample_scene
from tools.workflow_designs import DEMO_PROMPT, DEMO_SEED


class Says:
    """Stands for the judge."""

    def values(self, pictures: torch.Tensor) -> list[dict[str, str]]:
        return [{"kind": "cube", "color": "red", "material": "metal", "ground": "sand"}] * len(pictures)


def test_a_picture_is_right_where_all_that_was_wanted_is_seen() -> None:
    wanted = {"kind": "cube", "color": "red", "material": "rubber"}
    seen = agreements(Says(), torch.zeros(2, 3, 8, 8), wanted)  # type: ignore[arg-type]
    assert seen == [{"kind": True, "color": True, "material": False}] * 2


def test_a_seed_agrees_where_half_of_its_pictures_are_right() -> None:
    right, wrong = {"kind": True}, {"kind": False}
    told = summary([[right, wrong], [wrong, wrong], [right, right]], [3.0, 1.0, 2.0], {"kind": "cube"})
    assert (told["seeds_that_agree"], told["right"], told["seconds_median"]) == (2, 0.5, 2.0)


def test_what_is_wanted_is_what_the_workflow_s_prompt_names() -> None:
    scene = sample_scene(DEMO_SEED, count=2)
    wanted = wanted_of(scene.objects)
    assert wanted["kind"] == "cube"
    assert "{cone.color} {cone.material} {cube.object}" in DEMO_PROMPT
    assert wanted["color"] == next(one.color for one in scene.objects if one.kind == "cone")


def test_training_and_drawing_get_another_seed_and_the_scene_does_not() -> None:
    graph = {
        "1": {"class_type": "ICEDemoScene", "inputs": {"seed": 1}},
        "2": {"class_type": "ICEIntrinsicTrainer", "inputs": {"seed": 0}},
        "3:1": {"class_type": "KSampler", "inputs": {"seed": 0}},
    }
    assert [node["inputs"]["seed"] for node in with_seed(graph, 7).values()] == [1, 7, 7]
    assert graph["2"]["inputs"]["seed"] == 0
