"""The judge of the benchmarks, and what it says of the bundled model."""

from __future__ import annotations

import torch

from ice_core.model.backbone import Prompt
from ice_core.model.sampling import SamplingConfig, sample
from ice_core.world.bundled import load_bundled_backbone
from ice_core.world.renderer import render
from ice_core.world.scenes import sample_scene
from tools.world.judging import JUDGED, load_judge


def test_judge_is_right_on_renders_it_never_saw() -> None:
    scenes = [sample_scene(6_200_000 + i, "any", count=1) for i in range(64)]
    seen = load_judge().values(render(scenes).images)
    for axis in JUDGED:
        truth = [s.ground if axis == "ground" else s.objects[0].value(axis) for s in scenes]
        right = sum(v[axis] == t for v, t in zip(seen, truth, strict=True))
        assert right >= 58, axis


def test_prompts_draw_the_right_kind_and_color() -> None:
    """A floor, far above chance (0.2 and 0.125); world_quality.py measures it."""
    wanted = [
        ("ball", "red"),
        ("cube", "blue"),
        ("cylinder", "green"),
        ("cone", "yellow"),
        ("ring", "purple"),
    ]
    prompts = [Prompt((f"a photo of a plain {c} rubber {k} on snow",)) for k, c in wanted for _ in range(3)]
    images = sample(
        load_bundled_backbone(), prompts, SamplingConfig(steps=12), torch.Generator().manual_seed(0)
    )
    seen = load_judge().values(images)
    right_kind = sum(v["kind"] == wanted[i // 3][0] for i, v in enumerate(seen))
    right_color = sum(v["color"] == wanted[i // 3][1] for i, v in enumerate(seen))
    assert right_kind >= 8
    assert right_color >= 8
