"""Objects before words: cuts along attention, outlines, the loop that names what is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from attention_blocks import blocks
from color_words import BALL, CUBE, MEANS, SMALL_BALL, ColorWords, Scripted, box, keys, scene
from torch import Tensor

from benchmarks.localization import masks_of, pairwise_iou
from ice_core.concepts import ConceptSet
from ice_core.errors import IceError
from ice_core.localization import given as module
from ice_core.localization.config import LocalizationConfig
from ice_core.localization.given import concepts_from_labels
from ice_core.localization.loop import LocalizationRound, localize
from ice_core.localization.naming import alone
from ice_core.localization.segmentation import (
    ObjectsConfig,
    Segmentation,
    SegmentationConfig,
    find_objects,
)
from ice_core.localization.segmentation.cuts import normalized_cuts
from ice_core.localization.segmentation.outlines import walked

CONFIG = LocalizationConfig(
    objects=ObjectsConfig(timestep=20, cut_timestep=20, guide=0, walk=0),
    segmentation=SegmentationConfig(timestep=20, guide=0),
)
TOUCHING = ("cube", 16, 48, 64, 88)


def run(
    image: Tensor, retriever: Scripted, config: LocalizationConfig = CONFIG, seed: int = 0
) -> list[LocalizationRound]:
    return list(localize(ColorWords(), retriever, image, config, torch.Generator().manual_seed(seed)))


def found(image: Tensor, config: ObjectsConfig = CONFIG.objects) -> tuple[Tensor, ...]:
    return find_objects(ColorWords(), image, config, torch.Generator().manual_seed(0)).masks


def test_cuts_find_every_part_and_stop_there() -> None:
    groups = normalized_cuts(blocks(6, 5, 7, leak=0.05), most=0.2, least=3)
    assert [group.tolist() for group in groups] == [list(range(6)), list(range(6, 11)), list(range(11, 18))]


def test_the_value_of_a_cut_is_that_of_shi_and_malik() -> None:
    """Two equal halves that leak: cut(A, B) / assoc(A, V) = leak / 2 on either side."""
    halves = blocks(8, 8, leak=0.3)
    assert len(normalized_cuts(halves, most=0.31, least=2)) == 2
    assert len(normalized_cuts(halves, most=0.29, least=2)) == 1


def test_no_side_of_a_cut_is_smaller_than_asked() -> None:
    assert len(normalized_cuts(blocks(9, 2), most=0.1, least=2)) == 2
    assert len(normalized_cuts(blocks(9, 2), most=0.1, least=3)) == 1
    assert [g.tolist() for g in normalized_cuts(torch.ones(1, 1), most=0.1, least=1)] == [[0]]


def test_objects_apart_are_found_largest_first_and_disjoint() -> None:
    masks = torch.stack(found(scene(BALL, CUBE)))
    iou = pairwise_iou(torch.stack([box(BALL), box(CUBE)]), masks)
    assert len(masks) == 2
    assert iou.amax(1).min() > 0.75
    assert masks.sum((1, 2)).diff().max() <= 0
    assert masks.sum(0).max() == 1


def test_objects_that_touch_are_told_apart() -> None:
    """One connected foreground; a neck does not help, for they touch along a whole side."""
    masks = torch.stack(found(scene(BALL, TOUCHING)))
    iou = pairwise_iou(torch.stack([box(BALL), box(TOUCHING)]), masks)
    assert len(masks) == 2
    assert iou.amax(1).min() > 0.75
    assert len(found(scene(BALL, TOUCHING), replace(CONFIG.objects, cut=0))) == 1


def test_the_edges_of_the_picture_are_followed() -> None:
    odd = ("ball", 19, 11, 62, 45)
    plain, guided = (
        pairwise_iou(box(odd)[None], torch.stack(found(scene(odd), replace(CONFIG.objects, guide=g)))).item()
        for g in (0, 2.0)
    )
    assert guided > plain
    assert guided > 0.9


def test_a_walk_gives_a_shadow_back_to_the_ground() -> None:
    """The mask holds the box and a band beside it, which is dark ground of middling relevance."""
    image, mask, true = scene(BALL), box(BALL), box(BALL)
    mask[16:64, 48:56] = True
    image[:, 16:64, 48:56] = torch.tensor((0, 0.6, 0))[:, None, None]
    relevance = torch.where(true, 0.95, torch.where(mask, 0.65, 0.2))
    (kept,) = walked([mask], relevance, image, 60.0, 2)
    assert not (kept & ~mask).any()
    assert pairwise_iou(true[None], kept[None]).item() > 0.97


def test_a_glint_stays_with_its_object() -> None:
    image, mask = scene(BALL), box(BALL)
    image[:, 30:34, 20:24] = 1
    relevance = torch.where(mask, 0.95, 0.2)
    relevance[30:34, 20:24] = 0.3
    (kept,) = walked([mask], relevance, image, 60.0, 2)
    assert kept[30:34, 20:24].all()


def test_a_walk_needs_ground_and_something_to_decide() -> None:
    everything = torch.ones(8, 8, dtype=torch.bool)
    assert walked([], torch.zeros(8, 8), torch.zeros(3, 8, 8), 60.0, 1) == []
    (kept,) = walked([everything], torch.ones(8, 8), torch.zeros(3, 8, 8), 60.0, 1)
    assert kept.all()
    half = torch.arange(64).view(8, 8) < 32  # nothing to walk along: the picture is flat
    (kept,) = walked([half], half.float(), torch.zeros(3, 8, 8), 60.0, 1)
    assert torch.equal(kept, half)


def test_a_tight_mask_is_shown_with_a_little_around_it() -> None:
    seen = alone(scene(BALL), box(BALL))[1] > 0
    assert seen.any()
    assert not seen[:14].any()
    assert (seen | box(BALL)).sum() > box(BALL).sum()


def test_each_object_is_named_alone_and_what_is_no_object_is_background() -> None:
    image, retriever = scene(BALL, CUBE), Scripted("ball")
    rounds = run(image, retriever)
    result = rounds[-1].result
    assert [r.index for r in rounds] == [1, 2]
    assert keys(result) == ["ball", "ball-2"]
    for concept, seen in zip(result.concepts, retriever.images, strict=True):
        assert torch.equal(seen, alone(image, concept.mask))
    assert retriever.used == [(), ()]
    assert torch.equal(result.background, ~masks_of(result).any(0))
    assert all(0 < concept.score <= 1 for concept in result.concepts)


def test_the_last_round_says_why_it_is_the_last() -> None:
    image = scene(BALL, CUBE)
    assert [r.ended for r in run(image, Scripted("ball"))] == ["", "every object has its name"]
    (only,) = run(image, Scripted("ball"), replace(CONFIG, max_rounds=1))
    assert only.ended == "1 smaller objects are left out"


def test_an_object_without_a_word_is_an_object() -> None:
    assert keys(run(scene(BALL), Scripted())[-1].result) == ["object"]


def test_where_nothing_stands_out_words_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEANS, "background", (0.5, 0.5, 0.5))
    rounds = run(
        scene(BALL), Scripted("ball", "cube"), replace(CONFIG, objects=ObjectsConfig(foreground=0.99))
    )
    assert rounds[0].label == "ball"
    assert rounds[-1].ended


def test_the_same_seed_finds_the_same_objects() -> None:
    first, second = (run(scene(BALL, CUBE), Scripted("ball"), seed=5)[-1].result for _ in range(2))
    assert torch.equal(masks_of(first), masks_of(second))
    assert [c.score for c in first.concepts] == [c.score for c in second.concepts]


def given(image: Tensor, *labels: str) -> ConceptSet:
    return concepts_from_labels(ColorWords(), image, labels, CONFIG, torch.Generator().manual_seed(0))


def test_given_words_own_the_objects_they_cover() -> None:
    result = given(scene(BALL, TOUCHING, SMALL_BALL), "cube", "ball")
    assert keys(result) == ["cube", "ball", "ball-2"]
    truth = torch.stack([box(TOUCHING), box(BALL), box(SMALL_BALL)])
    assert pairwise_iou(truth, masks_of(result)).diagonal().min() > 0.75
    assert not (result.background & masks_of(result).any(0)).any()


def test_a_picture_is_encoded_once_for_its_objects_and_all_words(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def encode(self: ColorWords, images: Tensor) -> Tensor:
        seen.append(len(images))
        return plain(self, images)

    plain = ColorWords.encode_image
    monkeypatch.setattr(ColorWords, "encode_image", encode)
    assert keys(given(scene(BALL, CUBE), "cube", "ball")) == ["cube", "ball"]
    assert seen == [2], "the picture and its mirror image"


def test_an_object_goes_to_the_word_that_stands_out_on_it_not_to_one_that_is_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A word that is not in the picture may be attended to more, but everywhere."""
    ball = box(BALL)
    zebra = Segmentation(ball, torch.zeros_like(ball), 0.0, torch.full(ball.shape, 0.5) + 0.1 * ball)
    own = Segmentation(torch.zeros_like(ball), ~ball, 0.3, 0.05 + 0.35 * ball)
    monkeypatch.setattr(module, "segment_words", lambda *_: [zebra, own])
    assert [c.label for c in given(scene(BALL), "zebra", "ball").concepts] == ["ball"]


class Names:
    """A CLIP for which the first word is red, the second blue, and the last fits anything a little."""

    name, fingerprint, scale = "names", "0" * 64, 100.0

    def __init__(self) -> None:
        self.shown = 0

    def encode_images(self, images: Tensor) -> Tensor:
        self.shown += len(images)
        red, blue = images[:, 0].mean((1, 2)), images[:, 2].mean((1, 2))
        return torch.stack([red, blue, (red + blue) / 2], 1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        return torch.eye(3) if len(texts) == 3 else torch.eye(3)[[0, 2]]


def test_clip_says_which_of_the_given_words_an_object_is() -> None:
    """Here against the attention, which finds the ball red and the cube blue."""
    towers = Names()
    rng = torch.Generator().manual_seed(0)
    result = concepts_from_labels(ColorWords(), scene(BALL, CUBE), ["cube", "ball"], CONFIG, rng, towers)
    owners = {concept.label: concept.mask for concept in result.concepts}
    truth = torch.stack([box(CUBE), box(BALL)])
    assert pairwise_iou(truth, torch.stack([owners["ball"], owners["cube"]])).diagonal().min() > 0.75
    assert towers.shown == 2


def test_an_object_that_a_word_for_anything_fits_better_is_left_out() -> None:
    rng = torch.Generator().manual_seed(0)
    result = concepts_from_labels(ColorWords(), scene(BALL, CUBE), ["ball"], CONFIG, rng, Names())
    assert keys(result) == ["ball"]
    assert pairwise_iou(box(BALL)[None], masks_of(result)).item() > 0.75


def test_an_object_that_no_given_word_covers_is_left_out() -> None:
    assert keys(given(scene(BALL, CUBE), "ball")) == ["ball"]


def test_a_given_word_that_owns_no_object_has_its_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ground is no object, but a user may ask for it."""
    monkeypatch.setitem(MEANS, "grass", (0, 1.5, 0))
    result = given(scene(BALL), "ball", "grass")
    assert keys(result) == ["ball", "grass"]
    assert result.concepts[1].area > 0.5


@pytest.mark.parametrize(
    ("setting", "value"),
    [("draws", 0), ("timestep", -1), ("foreground", 1.0), ("cut", 2.5), ("guide", -1), ("walk", -1)],
)
def test_settings_out_of_range_are_refused(setting: str, value: float) -> None:
    with pytest.raises(IceError, match=f"objects {setting} is {value}"):
        ObjectsConfig(**{setting: value})  # type: ignore[arg-type]


def test_an_unknown_affinity_is_refused() -> None:
    with pytest.raises(IceError, match="unknown affinity 'guess'"):
        ObjectsConfig(affinity="guess")  # type: ignore[arg-type]


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(IceError, match="'guess'"):
        LocalizationConfig(strategy="guess")  # type: ignore[arg-type]
