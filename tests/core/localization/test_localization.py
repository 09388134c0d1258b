"""Stage One's loop with a scripted retriever, and how its benchmark scores."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from color_words import BALL, CUBE, MEANS, SMALL_BALL, Candidate, ColorWords, Scripted, box, keys, scene
from torch import Tensor

from benchmarks.literal.stage_one import localize_literal
from benchmarks.localization import boundary_f, main, masks_of, override, pairwise_iou, score_scene, summarize
from ice_core.errors import IceError
from ice_core.localization.config import LocalizationConfig
from ice_core.localization.given import concepts_from_labels, concepts_from_masks
from ice_core.localization.loop import LocalizationRound, localize
from ice_core.localization.naming import alone
from ice_core.localization.segmentation import SegmentationConfig

CONFIG = LocalizationConfig(strategy="words", segmentation=SegmentationConfig(timestep=20, guide=0))


def run(
    image: Tensor, retriever: Scripted, config: LocalizationConfig = CONFIG, seed: int = 0
) -> list[LocalizationRound]:
    return list(localize(ColorWords(), retriever, image, config, torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("method", ["propagation", "clusters"])
def test_both_objects_of_a_scene_are_found_with_their_words(method: str) -> None:
    segmentation = replace(CONFIG.segmentation, method=method, tau=0.5)
    config = replace(CONFIG, unexplained=0.0, segmentation=segmentation)
    result = run(scene(BALL, CUBE), Scripted("ball", "cube"), config)[-1].result
    assert keys(result) == ["ball", "cube"]
    iou = pairwise_iou(torch.stack([box(BALL), box(CUBE)]), masks_of(result))
    assert iou.diagonal().min() > 0.75
    assert all(0 < concept.score <= 1 for concept in result.concepts)
    assert not (result.background & masks_of(result).any(0)).any()


def test_what_is_explained_is_black_in_the_next_rounds_picture() -> None:
    retriever = Scripted("ball", "cube")
    image = scene(BALL, CUBE)
    rounds = run(image, retriever)
    assert torch.equal(retriever.images[0], image)
    first = rounds[0].result
    explained = first.background | masks_of(first).any(0)
    assert explained.any()
    assert torch.equal(retriever.images[2], image * ~explained)
    assert retriever.used[:3] == [(), (), ("ball",)]


def test_each_new_component_is_shown_to_the_retriever_alone() -> None:
    retriever = Scripted("ball")
    found = run(scene(BALL, SMALL_BALL), retriever)[0].found
    assert len(found) == 2
    for concept, seen in zip(found, retriever.images[1:3], strict=True):
        assert torch.equal(seen, alone(scene(BALL, SMALL_BALL), concept.mask))


class SeesRight(Scripted):
    """Names the whole picture by the list, and what lies alone on the right as something else."""

    def retrieve(self, image: Tensor, used: Sequence[str] = ()) -> list[Candidate]:
        if not used and not image[:, :, :64].any():
            return [Candidate("bead"), Candidate("cube")]
        return super().retrieve(image, used)


def test_a_component_that_is_something_else_is_named_anew() -> None:
    result = run(scene(BALL, SMALL_BALL), SeesRight("ball"))[0].result
    assert keys(result) == ["ball", "bead"]
    assert [concept.label for concept in result.concepts] == ["ball", "bead"]


def test_a_word_that_is_among_those_seen_alone_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEANS, "cube", MEANS["ball"])
    result = run(scene(BALL, SMALL_BALL), SeesRight("cube"))[0].result
    assert keys(result) == ["cube", "cube-2"]


def test_it_ends_once_nearly_everything_is_explained() -> None:
    retriever = Scripted("ball", "cube", "cone", "ring")
    rounds = run(scene(BALL), retriever)
    assert len(rounds) == 1
    assert rounds[-1].result.unexplained < CONFIG.unexplained


def test_it_ends_after_the_configured_number_of_rounds() -> None:
    config = replace(CONFIG, unexplained=0.0, max_rounds=1)
    assert len(run(scene(BALL, CUBE), Scripted("ball", "cube"), config)) == 1


def test_it_ends_when_the_retriever_has_no_word_left_and_says_so() -> None:
    rounds = run(scene(BALL, CUBE), Scripted("ball"), replace(CONFIG, unexplained=0.0))
    assert [r.label for r in rounds] == ["ball", ""]
    assert keys(rounds[-1].result) == ["ball"]


def test_without_any_word_there_is_one_round_and_an_empty_result() -> None:
    rounds = run(scene(BALL), Scripted())
    assert len(rounds) == 1
    assert rounds[0].result.concepts == ()


def test_fruitless_rounds_end_it_and_their_words_are_not_tried_again() -> None:
    retriever = Scripted("cube", "sphere", "ball")
    rounds = run(scene(), retriever, replace(CONFIG, unexplained=0.0, patience=2))
    assert [r.label for r in rounds] == ["cube", "sphere"]
    assert all(r.found == () for r in rounds)
    assert rounds[-1].result.concepts == ()


def test_a_word_that_finds_nothing_new_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MEANS, "sphere", MEANS["ball"])
    config = replace(CONFIG, unexplained=0.0, max_rounds=3)
    rounds = run(scene(BALL, CUBE), Scripted("ball", "sphere", "cube"), config)
    assert [len(r.found) for r in rounds] == [1, 0, 1]
    assert keys(rounds[-1].result) == ["ball", "cube"]


def test_two_instances_of_a_word_become_two_concepts_the_larger_first() -> None:
    result = run(scene(BALL, SMALL_BALL), Scripted("ball"))[0].result
    assert keys(result) == ["ball", "ball-2"]
    assert result.concepts[0].area > result.concepts[1].area
    assert {concept.label for concept in result.concepts} == {"ball"}


def test_the_same_seed_gives_the_same_result() -> None:
    first, second = (run(scene(BALL, CUBE), Scripted("ball", "cube"), seed=5)[-1].result for _ in range(2))
    assert torch.equal(masks_of(first), masks_of(second))
    assert [c.score for c in first.concepts] == [c.score for c in second.concepts]
    assert torch.equal(first.background, second.background)


def test_given_words_are_found_in_one_pass_and_repeated_ones_once() -> None:
    generator = torch.Generator().manual_seed(0)
    found = concepts_from_labels(
        ColorWords(), scene(BALL, CUBE), [" ball ", "cube", "ball"], CONFIG, generator
    )
    assert keys(found) == ["ball", "cube"]
    assert pairwise_iou(torch.stack([box(BALL), box(CUBE)]), masks_of(found)).diagonal().min() > 0.75


@pytest.mark.parametrize("labels", [[], ["ball", " "]])
def test_no_or_empty_words_are_refused(labels: list[str]) -> None:
    with pytest.raises(IceError, match="word"):
        concepts_from_labels(ColorWords(), scene(BALL), labels, CONFIG, torch.Generator())


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.uint8])
def test_masks_of_any_size_and_type_are_fitted_to_the_image(dtype: torch.dtype) -> None:
    masks = torch.zeros(2, 48, 64)
    masks[0, :24] = 1
    masks[1, 24:, :32] = 1
    found = concepts_from_masks(scene(BALL), ["ball", "ball"], masks.to(dtype))
    assert keys(found) == ["ball", "ball-2"]
    assert [concept.area for concept in found.concepts] == [0.5, 0.25]
    assert found.concepts[0].mask.shape == (96, 128)
    assert found.concepts[0].mask.dtype == torch.bool
    assert found.unexplained == 0
    assert found.background.float().mean() == 0.25


def test_a_mask_with_a_leading_one_is_taken() -> None:
    found = concepts_from_masks(scene(BALL), ["ball"], [box(BALL)[None]])
    assert torch.equal(found.concepts[0].mask, box(BALL))


@pytest.mark.parametrize(
    ("labels", "masks", "message"),
    [
        (["ball"], [torch.zeros(96, 128)], "'ball' is empty"),
        (["ball", "cube"], [torch.ones(96, 128)], "2 words .* 1 mask;"),
        ([""], [torch.ones(96, 128)], "empty"),
        ([], [], "no words"),
        (["ball"], [torch.ones(2, 96, 128)], "shape"),
        (["ball"], [torch.full((96, 128), math.nan)], "NaN"),
    ],
)
def test_masks_that_cannot_be_meant_are_refused(labels: list[str], masks: list[Tensor], message: str) -> None:
    with pytest.raises(IceError, match=message):
        concepts_from_masks(scene(BALL), labels, masks)


def test_masks_without_words_are_named_each_alone() -> None:
    image, retriever = scene(BALL, CUBE), Scripted("ball")
    found = concepts_from_masks(image, None, [box(BALL), box(CUBE)], retriever)
    assert keys(found) == ["ball", "ball-2"]
    for seen, mask in zip(retriever.images, (box(BALL), box(CUBE)), strict=True):
        assert torch.equal(seen, alone(image, mask))
    with pytest.raises(IceError, match="one word per mask"):
        concepts_from_masks(image, None, [box(BALL)])
    with pytest.raises(IceError, match="no masks"):
        concepts_from_masks(image, None, [], retriever)


@pytest.mark.parametrize("grown", [-6, 6])
def test_rough_masks_are_redrawn_along_contours(grown: int) -> None:
    image = scene(BALL, CUBE)
    masks = [
        box((word, top - grown, left - grown, bottom + grown, right + grown))
        for word, top, left, bottom, right in (BALL, CUBE)
    ]
    found = concepts_from_masks(image, ["ball", "cube"], masks, refine=True)
    for concept, true in zip(found.concepts, (box(BALL), box(CUBE)), strict=True):
        assert pairwise_iou(concept.mask[None], true[None]).item() > 0.97
    as_they_are = concepts_from_masks(image, ["ball", "cube"], masks)
    assert torch.equal(as_they_are.concepts[0].mask, masks[0])


def test_a_mask_in_a_picture_without_contours_stays() -> None:
    flat = torch.full((3, 96, 128), 0.5)
    assert torch.equal(
        concepts_from_masks(flat, ["ball"], [box(BALL)], refine=True).concepts[0].mask, box(BALL)
    )


def test_a_picture_with_nan_is_refused_before_the_retriever_sees_it() -> None:
    image = scene(BALL)
    image[0, 0, 0] = math.nan
    retriever = Scripted("ball")
    with pytest.raises(IceError, match="NaN"):
        run(image, retriever)
    assert retriever.images == []
    with pytest.raises(IceError, match="NaN"):
        concepts_from_masks(image, ["ball"], [box(BALL)])


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(IceError, match="max_rounds"):
        LocalizationConfig(max_rounds=0)
    with pytest.raises(IceError, match="unexplained"):
        LocalizationConfig(unexplained=1.5)
    with pytest.raises(IceError, match=r"neck is 1\.5"):
        LocalizationConfig(neck=1.5)


def test_pairwise_iou_of_overlapping_and_empty_masks() -> None:
    masks = torch.zeros(3, 1, 4, dtype=torch.bool)
    masks[0, 0, :2] = True
    masks[1, 0, 1:] = True
    expected = torch.tensor([[1, 0.25, 0], [0.25, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(pairwise_iou(masks, masks), expected)


def test_matching_takes_the_best_total_and_not_the_first_best() -> None:
    truth = torch.zeros(2, 1, 10, dtype=torch.bool)
    truth[0, 0, :5], truth[1, 0, 5:] = True, True
    found = torch.zeros(2, 1, 10, dtype=torch.bool)
    found[0, 0, 2:10] = True
    found[1, 0, 1:5] = True
    score = score_scene(["ball", "cube"], truth, found, ["cube", "ball"])
    assert score.ious == pytest.approx((0.8, 5 / 8))
    assert score.labels_right == (True, True)


def test_missed_objects_count_zero_and_an_untouched_match_has_no_label() -> None:
    truth = torch.zeros(2, 1, 10, dtype=torch.bool)
    truth[0, 0, :5], truth[1, 0, 5:] = True, True
    nothing = score_scene(["ball", "cube"], truth, truth[:0], [])
    assert nothing.ious == (0, 0)
    assert nothing.labels_right == (False, False)
    elsewhere = score_scene(["ball"], truth[:1], truth[1:], ["ball"])
    assert elsewhere.labels_right == (False,)
    one = score_scene(["ball", "cube"], truth, truth[1:], ["cube"])
    assert summarize([one, nothing, elsewhere]) == {
        "mean_iou": 0.2,
        "boundary_f": pytest.approx(0.28),
        "shadow_share": 0.5,
        "label_accuracy": 0.2,
        "count_accuracy": pytest.approx(1 / 3),
        "objects": 5,
        "scenes": 3,
    }


def test_benchmark_settings_are_read_by_type_and_unknown_ones_refused() -> None:
    config = override(SegmentationConfig(), ["tau=0.7", "flip=false", "draws=3"])
    assert (config.tau, config.flip, config.draws) == (0.7, False, 3)
    with pytest.raises(IceError, match="unknown setting 'tao'"):
        override(config, ["tao=1"])
    with pytest.raises(IceError, match="must be of type int"):
        override(config, ["draws=many"])


def test_the_benchmark_writes_every_figure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundled = SimpleNamespace(
        load_bundled_backbone=lambda device: ColorWords(),
        bundled_retriever=lambda backbone: Scripted("ball", "cube"),
    )
    monkeypatch.setitem(sys.modules, "ice_core.world.bundled", bundled)
    out = tmp_path / "results" / "localization.json"
    assert main(["--scenes", "2", "--seed", "1", "--method", "clusters", "--out", str(out)]) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    figures = {"mean_iou", "boundary_f", "shadow_share", "label_accuracy", "count_accuracy"}
    assert figures | {f"{name}.interval" for name in figures} | {"seconds_per_scene"} <= set(report)
    assert set(report["literal"]) == set(report) - {"literal", "settings", "environment"}
    assert report["scenes"] == 2
    assert report["settings"]["localization"]["segmentation"]["method"] == "clusters"
    assert report["settings"]["model"] == ColorWords.fingerprint
    assert main(["--scenes", "1", "--set", "tao=1", "--out", str(out)]) == 2


def test_outlines_may_be_two_pixels_off_and_no_more() -> None:
    square = torch.zeros(40, 40, dtype=torch.bool)
    square[10:30, 10:30] = True
    assert boundary_f(square, square) == 1
    assert boundary_f(square, square.roll(2, 1)) == 1
    assert 0.4 < boundary_f(square, square.roll(4, 1)) < 0.8
    assert boundary_f(square, torch.zeros_like(square)) == 0


def test_with_true_masks_only_the_names_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundled = SimpleNamespace(
        load_bundled_backbone=lambda device: ColorWords(), bundled_retriever=lambda backbone: Scripted("ball")
    )
    monkeypatch.setitem(sys.modules, "ice_core.world.bundled", bundled)
    out = tmp_path / "names.json"
    assert main(["--scenes", "2", "--masks", "true", "--out", str(out)]) == 0
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["mean_iou"] == report["count_accuracy"] == 1
    assert "literal" not in report


def test_the_literal_stage_one_keeps_no_part_below_its_least_area() -> None:
    image = scene(BALL, CUBE)
    found = localize_literal(ColorWords(), Scripted("ball", "cube"), image, torch.Generator().manual_seed(0))
    assert {concept.label for concept in found.concepts} <= {"ball", "cube"}
    assert all(concept.area > 0.025 for concept in found.concepts)
    assert not (found.background & masks_of(found).any(0)).any()


def test_word_that_is_not_there_explains_nothing() -> None:
    """Its round must not swallow the objects as background; the next word still finds them."""
    rounds = run(scene(BALL, CUBE), Scripted("cube", "ball"), replace(CONFIG, min_area=0.3))
    assert rounds[0].found == ()
    assert not rounds[0].result.background.any()
