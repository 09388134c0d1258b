"""The rendered world: seeded scenes, true masks, captions that are true."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from ice_core.errors import IceError
from ice_core.world.captions import BACKGROUND, caption, contradiction, mixed, vocabulary
from ice_core.world.colors import FINE_NAMES, NAMES, lab
from ice_core.world.renderer import render
from ice_core.world.scenes import (
    AXES,
    EXTREMES,
    INTRINSIC_AXES,
    Scene,
    SceneObject,
    combinations,
    is_held_out,
    sample_scene,
)

ALL_AXES = (*AXES, "fine", "shade", "second", *EXTREMES)


def lone(kind: str, **changes: object) -> Scene:
    item = SceneObject(kind, "red", "rubber", "plain", x=0.0, z=0.0, size=1.0, rotation=0.3)
    return Scene(objects=(replace(item, **changes),), ground="snow", seed=3)  # type: ignore[arg-type]


def test_same_seed_gives_the_same_scene_and_picture():
    first, second = sample_scene(12), sample_scene(12)
    assert first == second
    assert torch.equal(render([first]).images, render([second]).images)
    assert sample_scene(13) != first


@pytest.mark.parametrize("count", [1, 2, 3])
def test_scene_holds_as_many_objects_as_asked(count: int):
    assert all(len(sample_scene(i, count=count).objects) == count for i in range(20))


def test_impossible_count_is_refused():
    with pytest.raises(IceError, match="1 to 3"):
        sample_scene(0, count=4)


def test_held_out_combinations_never_occur_in_seen_scenes():
    scenes = [sample_scene(i, "seen") for i in range(300)]
    assert not any(is_held_out(o.attributes) for s in scenes for o in s.objects)
    held_out = [sample_scene(i, "held_out") for i in range(50)]
    assert all(is_held_out(o.attributes) for s in held_out for o in s.objects)
    assert 0.06 < len(combinations("held_out")) / len(combinations("any")) < 0.14


def test_solids_do_not_interpenetrate():
    for scene in (sample_scene(i, count=3) for i in range(50)):
        for i, a in enumerate(scene.objects):
            for b in scene.objects[i + 1 :]:
                assert ((a.x - b.x) ** 2 + (a.z - b.z) ** 2) ** 0.5 > a.size + b.size


@pytest.mark.parametrize("kind", AXES["kind"])
def test_mask_is_where_the_object_changes_the_picture(kind: str):
    """A colour change may show only inside the mask: its own pixels, antialiased at the rim."""
    red, blue = render([lone(kind), lone(kind, color="blue")]).images
    mask = render([lone(kind)]).masks[0, 0]
    changed = (red - blue).abs().amax(0) > 0.1
    assert mask.float().mean() > 0.03
    rim = torch.nn.functional.max_pool2d(mask[None].float(), 3, 1, 1)[0].bool()
    assert not (changed & ~rim).any()
    assert (changed & mask).sum() > 0.9 * mask.sum()


def test_masks_are_disjoint_and_missing_objects_have_none():
    masks = render([sample_scene(i) for i in range(12)]).masks
    assert masks.sum(1).max() == 1
    for i in range(12):
        assert masks[i].flatten(1).any(1).tolist() == [n < len(sample_scene(i).objects) for n in range(3)]


def test_front_object_takes_the_mask_where_two_overlap():
    near = SceneObject("ball", "red", "rubber", "plain", x=0.0, z=-1.2, size=0.9, rotation=0.0)
    far = SceneObject("cylinder", "blue", "rubber", "plain", x=0.0, z=0.9, size=0.9, rotation=0.0)
    both = render([Scene((far, near), "snow", 1)]).masks[0]
    alone = render([Scene((far,), "snow", 1)]).masks[0, 0]
    nearest = render([Scene((near,), "snow", 1)]).masks[0, 0]
    # Rim pixels that both cover by half may go to either.
    assert (both[1] ^ nearest).sum() < 0.02 * nearest.sum()
    assert (both[0] ^ (alone & ~nearest)).sum() < 0.02 * alone.sum()
    assert both[0].sum() < 0.9 * alone.sum()


def test_every_attribute_value_changes_the_picture():
    for kind, axis in itertools.product(AXES["kind"], ("color", "material", "pattern")):
        base = lone(kind, color="green")
        pictures = render(
            [replace(base, objects=(replace(base.objects[0], **{axis: value}),)) for value in AXES[axis]]
        ).images
        for i in range(len(pictures)):
            for j in range(i):
                assert (pictures[i] - pictures[j]).abs().amax() > 0.15, (kind, axis, i, j)


def test_captions_are_true_and_their_contradictions_are_not_the_same_claim():
    rng = random.Random(0)
    false = total = 0
    for scene in (sample_scene(i) for i in range(200)):
        text = caption(scene, rng)
        assert text.is_true_of(scene), text.text
        wrong = contradiction(text, scene, rng)
        if wrong is not None:
            total += 1
            false += not wrong.is_true_of(scene)
            assert wrong.text != text.text
    # With several objects a changed attribute can by chance be true of another one.
    assert false > 0.9 * total > 0


def test_words_are_owned_by_the_objects_they_describe():
    rng = random.Random(1)
    for scene in (sample_scene(i) for i in range(100)):
        for word in caption(scene, rng).words:
            for owner in word.owners:
                if owner == BACKGROUND:
                    assert word.text in (scene.ground, "ground", "background")
                elif word.text in vocabulary():
                    item = scene.objects[owner]
                    true = {w for axis in ALL_AXES for w in item.words(axis)}
                    assert word.text in true | set(INTRINSIC_AXES)


def test_mixed_words_say_the_objects_own_color():
    """The names' middles, mixed as the caption mixes their rows, give the color that was drawn."""
    rng, errors = random.Random(3), []
    for scene in (sample_scene(i, between=0.3) for i in range(100)):
        for word in mixed(caption(scene, rng), scene, rng, share=1.0).words:
            names = {**NAMES, **FINE_NAMES}
            if word.mix and word.mix[0][0] in names:
                assert sum(w for _, w in word.mix) == pytest.approx(1, abs=0.1)
                said = sum(w * lab(names[name]) for name, w in word.mix)
                errors.append(float(np.linalg.norm(said - lab(scene.objects[word.owners[0]].paint))))
    assert len(errors) > 50
    assert np.median(errors) < 5


def test_every_object_is_of_the_range_of_its_name_and_between_ones_have_two():
    for i in range(60):
        for item in sample_scene(i).objects:
            assert item.words("color") == (item.color,)
        for item in sample_scene(i, between=1.0).objects:
            assert len(item.words("color")) == 2


def test_hidden_objects_are_not_spoken_of():
    rng = random.Random(2)
    scene = next(s for s in map(sample_scene, range(100)) if len({o.kind for o in s.objects}) == 3)
    for _ in range(50):
        words = {w.text for w in caption(scene, rng, visible=(1,)).words}
        assert not words & {scene.objects[0].kind, scene.objects[2].kind}
