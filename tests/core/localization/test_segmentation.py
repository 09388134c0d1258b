"""The attention segmentor on hand-made maps and on flat colours."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from color_words import BALL, CUBE, ColorWords, box, scene
from fakes import FakeBackbone
from torch import Tensor

from ice_core.errors import IceError
from ice_core.localization.segmentation import (
    SegmentationConfig,
    components,
    contrast,
    segment,
    segment_words,
)
from ice_core.localization.segmentation.grids import aggregate
from ice_core.localization.segmentation.guided import guided_filter
from ice_core.localization.segmentation.labels import balanced, region_means, vote, word_shares
from ice_core.localization.segmentation.maps import AttentionMaps, attention_maps, encode_views
from ice_core.localization.segmentation.segmentor import MOST_PIECES, segment_maps
from ice_core.localization.segmentation.strategies.clusters import (
    anchor_positions,
    argmax_map,
    kmeans,
    merge,
    regions,
    symmetric_kl,
)
from ice_core.localization.segmentation.strategies.propagation import propagate


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_attention(height: int, width: int, seed: int = 0) -> Tensor:
    logits = torch.randn(height * width, height * width, generator=rng(seed))
    return logits.softmax(-1)


def block_attention(height: int, width: int, boundary: int) -> tuple[Tensor, Tensor]:
    """Positions attend to their own side of column `boundary`: attention [P, P] and sides [h, w]."""
    side = (torch.arange(width) >= boundary).expand(height, width)
    same = (side.flatten()[:, None] == side.flatten()).float() + 1e-4
    return same / same.sum(1, keepdim=True), side


def halves(height: int = 64, width: int = 64) -> Tensor:
    """A picture [3, H, W]: left red, right blue."""
    image = torch.zeros(3, height, width)
    image[0, :, : width // 2] = 1
    image[2, :, width // 2 :] = 1
    return image


def test_aggregated_attention_is_one_distribution_per_position() -> None:
    maps = {(4, 6): random_attention(4, 6), (2, 3): random_attention(2, 3, 1)}
    total = aggregate(maps)
    assert total.shape == (24, 24)
    torch.testing.assert_close(total.sum(1), torch.ones(24))


def test_aggregation_equals_a_loop_over_positions() -> None:
    maps = {(2, 3): random_attention(2, 3, 1), (4, 6): random_attention(4, 6)}
    total = aggregate(maps)
    for row in range(4):
        for column in range(6):
            expected = torch.zeros(4, 6)
            for (h, w), attention in maps.items():
                own = attention[(row * h // 4) * w + column * w // 6].view(1, 1, h, w)
                own = torch.nn.functional.interpolate(own, size=(4, 6), mode="bilinear")[0, 0]
                expected += own / own.sum() * h / (4 + 2)
            torch.testing.assert_close(total[row * 6 + column].view(4, 6), expected)


def test_symmetric_kl_is_symmetric_and_zero_on_itself() -> None:
    p = random_attention(3, 4)
    distance = symmetric_kl(p, p)
    torch.testing.assert_close(distance, distance.T)
    torch.testing.assert_close(distance.diagonal(), torch.zeros(12), atol=1e-5, rtol=0)
    first, second = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    forward = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    backward = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert symmetric_kl(first, second).item() == pytest.approx((forward + backward) / 2, abs=1e-6)


def test_symmetric_kl_stays_finite_where_a_distribution_is_zero() -> None:
    distance = symmetric_kl(torch.eye(3), torch.eye(3))
    assert distance.isfinite().all()
    assert distance[0, 1] > 10


def test_anchors_are_a_centred_grid_capped_by_the_resolution() -> None:
    assert anchor_positions((4, 8), 2).tolist() == [1 * 8 + 2, 1 * 8 + 6, 3 * 8 + 2, 3 * 8 + 6]
    assert anchor_positions((3, 5), 16).tolist() == list(range(15))


@pytest.mark.parametrize("size", [(8, 8), (6, 10)])
def test_two_blocks_of_attention_become_two_regions(size: tuple[int, int]) -> None:
    attention, side = block_attention(*size, boundary=size[1] // 2)
    found = regions(attention, size, size, SegmentationConfig(anchors=4))
    assert found.unique().numel() == 2
    assert ((found == found[0, 0]) == (side == side[0, 0])).all()


def test_a_huge_threshold_merges_everything_and_a_tiny_one_nothing() -> None:
    attention = random_attention(4, 4)
    anchors = anchor_positions((4, 4), 4)
    assert len(merge(attention, anchors, 1e3, 3)) == 1
    assert len(merge(attention, anchors, 1e-6, 3)) == 16


def test_merged_proposals_and_refined_ones_stay_distributions() -> None:
    attention = random_attention(4, 5)
    proposals = merge(attention, anchor_positions((4, 5), 3), 0.5, 2)
    for maps in (proposals, kmeans(attention, proposals, 3)):
        torch.testing.assert_close(maps.sum(1), torch.ones(len(maps)))


def test_kmeans_moves_a_wrong_seed_onto_the_blocks() -> None:
    attention, side = block_attention(6, 6, boundary=2)
    mixed = torch.stack([attention[0], 0.5 * attention[0] + 0.5 * attention[5]])
    refined = argmax_map(kmeans(attention, mixed, 2).unflatten(1, (6, 6)), (6, 6))
    assert (refined.bool() == side).all()


def test_argmax_over_many_maps_equals_argmax_over_all_at_once() -> None:
    maps = torch.rand(70, 3, 5, generator=rng())
    assert torch.equal(argmax_map(maps, (3, 5)), maps.argmax(0))


def test_word_shares_sum_to_one_over_words_at_every_position() -> None:
    words = {(2, 3): torch.rand(3, 2, 3, generator=rng()), (4, 6): torch.rand(3, 4, 6, generator=rng(1))}
    shares = word_shares(words, (4, 6))
    torch.testing.assert_close(shares.sum(0), torch.ones(4, 6))


def test_word_shares_do_not_depend_on_the_overall_mass_of_attention() -> None:
    maps = torch.rand(3, 4, 4, generator=rng()) + 0.1
    torch.testing.assert_close(
        word_shares({(4, 4): maps}, (4, 4)), word_shares({(4, 4): maps * 0.01}, (4, 4))
    )


def test_full_balance_gives_unit_norms_and_none_leaves_the_maps() -> None:
    maps = torch.rand(3, 4, 4, generator=rng())
    torch.testing.assert_close(balanced(maps, 1).flatten(1).norm(dim=1), torch.ones(3))
    assert torch.equal(balanced(maps, 0), maps)


def test_a_region_takes_the_word_with_the_largest_mean() -> None:
    index = torch.tensor([[0, 0, 1], [2, 2, 1]])
    maps = torch.zeros(3, 2, 3)
    maps[2, 0, :2] = torch.tensor([0.9, 0.0])
    maps[1, 0, :2] = 0.4
    maps[1, :, 2] = 0.3
    maps[0, 1, :2] = 0.2
    torch.testing.assert_close(region_means(index, maps)[0], torch.tensor([0.0, 0.4, 0.45]))
    assert vote(index, maps).tolist() == [[2, 2, 1], [0, 0, 1]]


def test_propagation_along_identity_attention_changes_nothing() -> None:
    maps = torch.rand(3, 12, generator=rng())
    assert torch.equal(propagate(maps, torch.eye(12), power=4, sharpness=2), maps)


def test_propagation_fills_a_block_from_a_single_hint() -> None:
    attention, side = block_attention(4, 6, boundary=3)
    hint = torch.zeros(1, 24)
    hint[0, 5] = 1
    spread = propagate(hint, attention, power=1).view(4, 6)
    assert spread[side].min() > 100 * spread[~side].max()


def test_sharper_attention_spreads_less_across_regions() -> None:
    attention = random_attention(4, 4)
    hint = torch.rand(1, 16, generator=rng())
    soft, sharp = (propagate(hint, attention, 2, sharpness).std() for sharpness in (1.0, 4.0))
    assert sharp > soft


def test_guided_filter_keeps_constants_and_moves_an_edge_onto_the_picture() -> None:
    image = halves(16, 24)
    torch.testing.assert_close(
        guided_filter(torch.full((2, 16, 24), 0.3), image, 3), torch.full((2, 16, 24), 0.3)
    )
    blurred = torch.linspace(1, 0, 24).expand(1, 16, 24)
    step = guided_filter(blurred, image, 4)[0]
    assert step[:, 11].mean() - step[:, 12].mean() > 4 * (blurred[0, :, 11] - blurred[0, :, 12]).mean()


def test_components_are_split_sorted_by_area_and_small_ones_dropped() -> None:
    mask = torch.zeros(20, 20, dtype=torch.bool)
    mask[1:5, 1:5] = True
    mask[8:18, 8:18] = True
    mask[0, 19] = True
    parts = components(mask, min_area=0.025)
    assert [int(part.sum()) for part in parts] == [100, 16]
    assert parts[0][10, 10]
    assert parts[0].dtype == torch.bool


def test_a_component_of_exactly_the_least_area_is_dropped() -> None:
    mask = torch.zeros(20, 20, dtype=torch.bool)
    mask[:2, :5] = True
    assert components(mask, min_area=0.025) == []


def test_pinholes_are_filled_and_the_hole_of_a_ring_is_kept() -> None:
    mask = torch.ones(40, 40, dtype=torch.bool)
    mask[5, 5] = False
    mask[20:30, 20:30] = False
    (part,) = components(mask, max_hole=0.0025)
    assert part[5, 5]
    assert not part[25, 25]


def test_a_small_gap_at_the_border_is_no_hole() -> None:
    mask = torch.ones(40, 40, dtype=torch.bool)
    mask[0, 7] = False
    assert not components(mask)[0][0, 7]


def disc(row: float, column: float, radius: float, size: int = 64) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def test_discs_that_touch_are_taken_apart_at_the_neck() -> None:
    large, small = disc(30, 20, 14), disc(34, 42, 10)
    first, second = components(large | small, neck=0.6)
    assert not (first & second).any()
    assert torch.equal(first | second, large | small)
    assert (first & large).sum() / (first | large).sum() > 0.93
    assert (second & small).sum() / (second | small).sum() > 0.93
    assert len(components(large | small)) == 1


def test_a_shape_without_a_neck_and_a_ring_stay_whole() -> None:
    ring = disc(32, 32, 24) & ~disc(32, 32, 14)
    for shape in (disc(32, 32, 20), ring, disc(30, 20, 14) | disc(32, 28, 12)):
        (part,) = components(shape, neck=0.6)
        assert torch.equal(part, shape)


def test_a_small_knob_is_no_object_of_its_own() -> None:
    shape = disc(32, 24, 18) | disc(32, 45, 4)
    (part,) = components(shape, min_area=0.025, neck=0.6)
    assert torch.equal(part, shape)


def test_an_empty_mask_has_no_components() -> None:
    assert components(torch.zeros(8, 8, dtype=torch.bool)) == []


def test_contrast_is_the_difference_of_means_and_zero_without_a_mask() -> None:
    relevance = torch.tensor([[0.9, 0.7, 0.2]])
    inside = torch.tensor([[True, True, False]])
    assert contrast(relevance, inside, ~inside) == pytest.approx(0.6)
    assert contrast(relevance, torch.zeros_like(inside), ~inside) == 0


@pytest.mark.parametrize("flip", [False, True])
def test_recorded_maps_are_distributions_of_the_latents_size(flip: bool) -> None:
    config, backbone = SegmentationConfig(flip=flip, draws=2, power=1), FakeBackbone()
    views = encode_views(backbone, halves(32, 64), flip)
    maps = attention_maps(backbone, views, ["red ball", "cube"], config, rng())
    assert set(maps.self_attention) == set(maps.words) == {(4, 8)}
    torch.testing.assert_close(maps.self_attention[4, 8].sum(1), torch.ones(32))
    assert maps.words[4, 8].shape == (4, 4, 8)


def test_mirrored_maps_are_turned_back() -> None:
    config, backbone = SegmentationConfig(timestep=0, draws=1, power=1), FakeBackbone()
    maps = attention_maps(backbone, encode_views(backbone, halves(), True), ["ball"], config, rng())
    weights = maps.self_attention[8, 8].view(8, 8, 8, 8)
    assert weights[0, 0, :, :4].sum() > 3 * weights[0, 0, :, 4:].sum()


def hand_made(boundary: int, height: int = 4, width: int = 8) -> AttentionMaps:
    """The concept left of a column, background right of it, things nowhere much."""
    attention, side = block_attention(height, width, boundary)
    words = torch.stack([0.6 - 0.4 * side, torch.full((height, width), 0.1), 0.2 + 0.4 * side])
    return AttentionMaps({(height, width): attention}, {(height, width): words})


@pytest.mark.parametrize("method", ["clusters", "propagation"])
@pytest.mark.parametrize("guide", [0, 0.75])
def test_segmentation_finds_concept_and_background_of_clear_maps(method: str, guide: float) -> None:
    image = halves(32, 64)
    config = SegmentationConfig(method=method, guide=guide)  # type: ignore[arg-type]
    (found,) = segment_maps(hand_made(4), image, config)
    expected = torch.zeros(32, 64, dtype=torch.bool)
    expected[:, :32] = True
    assert (found.mask == expected).float().mean() > 0.95
    assert (found.background == ~expected).float().mean() > 0.95
    assert 0.2 < found.score <= 1
    assert found.relevance.min() >= 0
    assert found.relevance.max() <= 1


@pytest.mark.parametrize("method", ["clusters", "propagation"])
def test_of_several_concepts_each_gets_its_own_part(method: str) -> None:
    attention, side = block_attention(4, 8, 4)
    things, background = torch.full((4, 8), 0.1), torch.full((4, 8), 0.3)
    words = torch.stack([0.6 - 0.4 * side, 0.2 + 0.4 * side, things, background])
    config = SegmentationConfig(method=method, guide=0)  # type: ignore[arg-type]
    left, right = segment_maps(AttentionMaps({(4, 8): attention}, {(4, 8): words}), halves(32, 64), config)
    expected = torch.zeros(32, 64, dtype=torch.bool)
    expected[:, :32] = True
    assert (left.mask == expected).float().mean() > 0.95
    assert (right.mask == ~expected).float().mean() > 0.95
    assert (left.background == ~expected).float().mean() > 0.95


class CountingBackbone(FakeBackbone):
    """Counts its passes, and of which kinds attention was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[tuple[str, ...]] = []
        self.encoded = 0

    def encode_image(self, images: Tensor) -> Tensor:
        self.encoded += 1
        return super().encode_image(images)

    def predict(self, *args: Any, **more: Any) -> Tensor:
        recorder = args[3]
        self.passes.append(tuple(kind for kind in ("self", "cross") if recorder.wants(kind, (8, 8))))
        return super().predict(*args, **more)


@pytest.mark.parametrize(
    ("names", "passes"),
    [
        (["ball"], 1),
        (["ball"] * MOST_PIECES, 1),
        (["ball"] * (MOST_PIECES + 1), 2),
        (["fire hydrant"] * MOST_PIECES, 2),
        (["ball " * 8] * (MOST_PIECES // 8), 1),
        (["ball " * 9] * (MOST_PIECES // 8), 2),
    ],
)
def test_several_words_share_a_pass_and_a_picture_is_encoded_once(names: list[str], passes: int) -> None:
    backbone = CountingBackbone()
    found = segment_words(backbone, halves(), names, SegmentationConfig(), rng())
    assert len(found) == len(names)
    assert backbone.passes == [("cross",)] * passes
    assert backbone.encoded == 1


@pytest.mark.parametrize("change", [{"method": "clusters"}, {"power": 1}])
def test_self_attention_is_recorded_where_it_is_used(change: dict[str, Any]) -> None:
    backbone = CountingBackbone()
    segment(backbone, halves(), "ball", SegmentationConfig(**change), rng())
    assert backbone.passes == [("self", "cross")]


def test_a_word_says_among_others_what_it_says_alone() -> None:
    """The encoder makes nothing else of it, and it is compared with the same words; what the others take of
    the attention is not the same in every view."""
    alone = segment(ColorWords(), scene(BALL, CUBE), "ball", SegmentationConfig(), rng(3))
    _, among = segment_words(ColorWords(), scene(BALL, CUBE), ["cube", "ball"], SegmentationConfig(), rng(3))
    torch.testing.assert_close(alone.relevance, among.relevance, atol=0.02, rtol=0)
    assert (alone.mask == among.mask).float().mean() > 0.99
    assert (alone.mask & box(BALL)).sum() > 0.9 * box(BALL).sum()


@pytest.mark.parametrize("method", ["clusters", "propagation"])
def test_segmentation_is_the_same_under_the_same_seed(method: str) -> None:
    config = SegmentationConfig(method=method)  # type: ignore[arg-type]
    first, second = (segment(FakeBackbone(), halves(48, 64), "ball", config, rng(3)) for _ in range(2))
    assert torch.equal(first.mask, second.mask)
    assert torch.equal(first.relevance, second.relevance)
    assert first.score == second.score
    assert first.mask.shape == first.background.shape == (48, 64)
    assert not (first.mask & first.background).any()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 64, 64), "shape"),
        (torch.full((3, 64, 64), math.nan), "NaN"),
        (torch.zeros(3, 60, 64), "multiples of 8"),
        (torch.full((3, 64, 64), 255.0), "from 255 to 255"),
    ],
)
def test_what_is_no_picture_is_refused(image: Tensor, message: str) -> None:
    with pytest.raises(IceError, match=message):
        segment(FakeBackbone(), image, "ball", SegmentationConfig(), rng())


def test_an_empty_word_and_a_timestep_beyond_the_model_are_refused() -> None:
    with pytest.raises(IceError, match="empty word"):
        segment(FakeBackbone(), halves(), "  ", SegmentationConfig(), rng())
    with pytest.raises(IceError, match="timestep 1000"):
        segment(FakeBackbone(), halves(), "ball", SegmentationConfig(timestep=1000), rng())


@pytest.mark.parametrize("change", [{"method": "magic"}, {"draws": 0}, {"tau": 0.0}, {"power": -1}])
def test_settings_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(IceError, match=next(iter(change))):
        SegmentationConfig(**change)  # type: ignore[arg-type]
